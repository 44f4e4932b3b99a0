"""From image files to arrays: decoding, resizing, near-duplicates, and the cache of decoded images."""

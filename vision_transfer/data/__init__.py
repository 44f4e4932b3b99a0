"""Data sets: sources, decoding, resizing, the cache of decoded images, subsets, augmentation, the order of batches."""

"""Where images come from: sources, decoding, resizing, the decoded cache, subsets and the order of batches."""

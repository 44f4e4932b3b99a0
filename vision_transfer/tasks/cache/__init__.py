"""What the cache folder holds, as a table, and how it is emptied: `--mode=cache` and `--prune=…`."""

"""The mode `cache`: lists the cache, and deletes from it what `--prune=…` names."""

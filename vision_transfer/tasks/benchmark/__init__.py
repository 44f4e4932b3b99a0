"""The task `benchmark`: the cost of running and training a network, by layer and by number of frozen layers."""

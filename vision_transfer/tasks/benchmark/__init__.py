"""What a network costs to run and to train, layer by layer and against the number of frozen layers."""

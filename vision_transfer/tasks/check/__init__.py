"""Looking at a data set before training: what is wrong with it, the worst first, and pictures to see it by."""

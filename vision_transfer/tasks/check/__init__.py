"""The mode `check`: finds what is wrong with a data set before training, and shows the worst first."""

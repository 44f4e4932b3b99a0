"""The task `search`: the best model for a data set that a number of minutes can find, and the evidence for it."""

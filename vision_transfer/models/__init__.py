"""Networks as tables of named layers, and the one Flax module that applies a table."""

"""Networks as tables of named layers, and the one Flax module that walks a table."""

"""Predicts which layers to freeze, without fine-tuning, from how well each layer's features separate the classes."""

"""Which layers to freeze, predicted without fine-tuning: how well each layer's features tell the classes apart."""

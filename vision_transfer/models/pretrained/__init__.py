"""Where pretrained weights come from: sources, converters, verification by digest."""

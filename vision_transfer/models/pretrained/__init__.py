"""Pretrained weights: sources, readers of file formats, verification by digest."""

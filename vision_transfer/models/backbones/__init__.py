"""Backbones: one file with the tables of each family, and the registry of all."""

"""Figures of what a network sees (activations, heat maps, filters) and, for teaching, of classic filters."""

"""Layers to freeze: sweeps over masks, their launchers, figures and tables."""

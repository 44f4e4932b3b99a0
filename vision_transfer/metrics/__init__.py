"""Metrics of predictions as functions on arrays: accuracy with its interval, calibration, significance tests."""

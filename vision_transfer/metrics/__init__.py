"""Numbers from arrays: accuracy with its interval, calibration, significance tests. Nothing here knows a model."""

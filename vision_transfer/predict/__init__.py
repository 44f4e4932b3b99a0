"""Use of a finished run: classes and calibrated probabilities of image files, in Python or as a CSV table."""

from vision_transfer.predict.predictor import Prediction, Predictor

__all__ = ["Prediction", "Predictor"]

"""A finished run put to use: classes and calibrated probabilities of pictures, and its figures looked at again."""

from vision_transfer.predict.predictor import Prediction, Predictor

__all__ = ["Prediction", "Predictor"]

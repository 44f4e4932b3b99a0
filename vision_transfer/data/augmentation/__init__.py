"""Augmentation on the device: one batched affine warp and colour jitter, drawn per example.

Two presets follow Keras: its preprocessing layers and its `ImageDataGenerator`. `augment_batch` is what a training
step calls; the parts (draw, compose, warp) can be called with parameters of one's own.
"""

from vision_transfer.data.augmentation.affine import affine_matrices
from vision_transfer.data.augmentation.augment import augment_batch, bank_variant
from vision_transfer.data.augmentation.colour import jitter_colours
from vision_transfer.data.augmentation.config import AugmentConfig
from vision_transfer.data.augmentation.sampling import (
    AffineParameters,
    ColourParameters,
    CropParameters,
    draw_parameters,
)
from vision_transfer.data.augmentation.warp import warp

__all__ = [
    "AffineParameters",
    "AugmentConfig",
    "ColourParameters",
    "CropParameters",
    "affine_matrices",
    "augment_batch",
    "bank_variant",
    "draw_parameters",
    "jitter_colours",
    "warp",
]

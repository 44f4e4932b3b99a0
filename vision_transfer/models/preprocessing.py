"""Preprocessing of pixels: Keras's modes (keras/src/applications/imagenet_utils.py) and two plain ones."""

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float, Real

Preprocessing = Literal["caffe", "torch", "tf", "lite", "rescale", "raw"]

# Means of ImageNet's training set in BGR, which VGG's authors subtracted.
CAFFE_MEAN_BGR = (103.939, 116.779, 123.68)
# Mean and standard deviation of ImageNet in RGB, for torchvision's weights.
TORCH_MEAN_RGB = (0.485, 0.456, 0.406)
TORCH_STD_RGB = (0.229, 0.224, 0.225)
# With a mean for each of the channels of RGB images.
RGB_PREPROCESSING = ("caffe", "torch")
MAX_PIXEL = 255.0
# Keras's `tf` maps 0–255 to −1–1.
TF_SCALE, TF_OFFSET = 1 / 127.5, -1.0
# EfficientNet-Lite's: https://github.com/tensorflow/tpu/blob/master/models/official/efficientnet/lite
LITE_MEAN, LITE_STD = 127.0, 128.0


def preprocess(
    images: Real[Array, "batch height width channels"], mode: Preprocessing
) -> Float[Array, "batch height width channels"]:
    """Images with values 0–255 (uint8 or float) as float32 input of a network; only `caffe` and `torch` must have RGB.

    `caffe`: RGB → BGR, minus the means. `torch`: divided by 255, minus mean, divided by standard deviation.
    `tf`: −1 to 1. `lite`: minus 127, divided by 128. `rescale`: divided by 255. `raw`: unchanged.
    """
    pixels = images.astype(jnp.float32)
    match mode:
        case "caffe":
            return pixels[..., ::-1] - jnp.asarray(CAFFE_MEAN_BGR, jnp.float32)
        case "torch":
            mean, std = jnp.asarray(TORCH_MEAN_RGB, jnp.float32), jnp.asarray(TORCH_STD_RGB, jnp.float32)
            return (pixels / MAX_PIXEL - mean) / std
        case "tf":
            return pixels * TF_SCALE + TF_OFFSET
        case "lite":
            return (pixels - LITE_MEAN) / LITE_STD
        case "rescale":
            return pixels / MAX_PIXEL
        case "raw":
            return pixels

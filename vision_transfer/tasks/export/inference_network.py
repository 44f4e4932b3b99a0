"""A network in terms that every library has: a scale and an offset per channel, rows, and a softmax."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from vision_transfer.models.layers import Conv, Dense, Row
from vision_transfer.models.network import Network, Params
from vision_transfer.models.preprocessing import (
    CAFFE_MEAN_BGR,
    LITE_MEAN,
    LITE_STD,
    MAX_PIXEL,
    TF_OFFSET,
    TF_SCALE,
    TORCH_MEAN_RGB,
    TORCH_STD_RGB,
    Preprocessing,
)


@dataclass(frozen=True)
class PlainNetwork:
    """Computes `images · scale + offset`, the rows, and a softmax for images with values 0–255.

    Everything is float32, whatever the precision of the run; kernels are as in `shapes.py`. The logits times
    `class_kernel` are the arguments of the softmax: it divides by the temperature, and if there is one logit for two
    classes, the argument of the first is 0.
    """

    input_shape: tuple[int, ...]
    scale: Float32[np.ndarray, "channels"]
    offset: Float32[np.ndarray, "channels"]
    rows: tuple[Row, ...]
    params: Params
    batch_stats: Params
    class_kernel: Float32[np.ndarray, "outputs classes"]
    classes: tuple[str, ...]


def plain_network(
    network: Network, variables: dict[str, Params], temperature: float, classes: Sequence[str]
) -> PlainNetwork:
    """Converts a network.

    If the preprocessing turns RGB into BGR, the first kernel takes its channels in reverse order instead. The offset
    cannot be folded into the kernel, since zero padding comes after it.
    """
    channels = network.input_shape[-1]
    scale, offset = _scale_and_offset(network.preprocessing, channels)
    params = {layer: dict(leaves) for layer, leaves in variables["params"].items()}
    if network.preprocessing == "caffe":
        first = next(layer for layer in network.layers if layer.name in params)
        if not isinstance(first, Conv | Dense):
            raise NotImplementedError(f"reversing the channels before {first}")
        params[first.name]["kernel"] = _channels_reversed(params[first.name]["kernel"], channels)
    class_rows = np.array([[0.0, 1.0]]) if network.outputs == 1 else np.eye(network.outputs)
    return PlainNetwork(
        input_shape=network.input_shape,
        scale=scale,
        offset=offset,
        rows=network.rows,
        params=params,
        batch_stats=variables["batch_stats"],
        class_kernel=(class_rows / temperature).astype(np.float32),
        classes=tuple(classes),
    )


def _scale_and_offset(mode: Preprocessing, channels: int) -> tuple[np.ndarray, np.ndarray]:
    ones, none = np.ones(channels), np.zeros(channels)
    scale, offset = {
        "caffe": (ones, -np.array(CAFFE_MEAN_BGR[::-1])),
        "torch": (1 / (MAX_PIXEL * np.array(TORCH_STD_RGB)), -np.array(TORCH_MEAN_RGB) / TORCH_STD_RGB),
        "tf": (ones * TF_SCALE, ones * TF_OFFSET),
        "lite": (ones / LITE_STD, -ones * LITE_MEAN / LITE_STD),
        "rescale": (ones / MAX_PIXEL, none),
        "raw": (ones, none),
    }[mode]
    return scale.astype(np.float32), offset.astype(np.float32)


def _channels_reversed(kernel: np.ndarray, channels: int) -> np.ndarray:
    """The kernel for input channels in reverse order; that of a dense layer takes a flattened map."""
    outputs = kernel.shape[-1]
    return np.ascontiguousarray(kernel.reshape(-1, channels, outputs)[:, ::-1].reshape(kernel.shape))

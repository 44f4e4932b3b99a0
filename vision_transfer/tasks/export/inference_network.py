"""A network in the terms that every library has: a scale and an offset per channel, layers, and a softmax."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from vision_transfer.models.layers import Layer
from vision_transfer.models.network import Network, Params
from vision_transfer.models.preprocessing import CAFFE_MEAN_BGR, MAX_PIXEL, TORCH_MEAN_RGB, TORCH_STD_RGB, Preprocessing


@dataclass(frozen=True)
class PlainNetwork:
    """What is computed of images with values 0–255: `images · scale + offset`, the layers, and a softmax.

    Everything is float32, whatever precision the run had.

    Attributes:
        input_shape: `(height, width, channels)`.
        scale: `(channels,)`.
        offset: `(channels,)`.
        layers: the table, which ends in logits.
        params: by layer; kernels HWIO or in × out.
        batch_stats: by batch norm.
        class_kernel: `(outputs, classes)`: the logits times this are the arguments of the softmax. It divides by the
            temperature, and gives the first of two classes the argument 0 where there is one logit for both.
        classes: names, in order.
    """

    input_shape: tuple[int, int, int]
    scale: Float32[np.ndarray, "channels"]
    offset: Float32[np.ndarray, "channels"]
    layers: tuple[Layer, ...]
    params: Params
    batch_stats: Params
    class_kernel: Float32[np.ndarray, "outputs classes"]
    classes: tuple[str, ...]


def plain_network(
    network: Network, variables: dict[str, Params], temperature: float, classes: Sequence[str]
) -> PlainNetwork:
    """The network in plain terms.

    Where the preprocessing turns RGB into BGR, the first kernel takes its channels in the other order instead. The
    offset stays outside of the kernel: padding by zeros comes after it.
    """
    channels = network.input_shape[-1]
    scale, offset = _scale_and_offset(network.preprocessing, channels)
    params = {layer: dict(leaves) for layer, leaves in variables["params"].items()}
    if network.preprocessing == "caffe":
        first = next(layer.name for layer in network.layers if layer.name in params)
        params[first]["kernel"] = _channels_reversed(params[first]["kernel"], channels)
    return PlainNetwork(
        input_shape=network.input_shape,
        scale=scale,
        offset=offset,
        layers=network.layers,
        params=params,
        batch_stats=variables["batch_stats"],
        class_kernel=_class_kernel(network.outputs, temperature),
        classes=tuple(classes),
    )


def _scale_and_offset(mode: Preprocessing, channels: int) -> tuple[np.ndarray, np.ndarray]:
    ones = np.ones(channels)
    match mode:
        case "caffe":
            scale, offset = ones, -np.array(CAFFE_MEAN_BGR[::-1])
        case "torch":
            scale, offset = 1 / (MAX_PIXEL * np.array(TORCH_STD_RGB)), -np.array(TORCH_MEAN_RGB) / TORCH_STD_RGB
        case "rescale":
            scale, offset = ones / MAX_PIXEL, 0 * ones
        case "raw":
            scale, offset = ones, 0 * ones
    return scale.astype(np.float32), offset.astype(np.float32)


def _channels_reversed(kernel: np.ndarray, channels: int) -> np.ndarray:
    """A kernel for the same map with its channels in the other order; of a dense layer, for the map flattened."""
    outputs = kernel.shape[-1]
    return np.ascontiguousarray(kernel.reshape(-1, channels, outputs)[:, ::-1].reshape(kernel.shape))


def _class_kernel(outputs: int, temperature: float) -> np.ndarray:
    rows = np.array([[0.0, 1.0]]) if outputs == 1 else np.eye(outputs)
    return (rows / temperature).astype(np.float32)

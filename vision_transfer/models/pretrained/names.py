"""The names and layouts that tensors of a network have in files of Keras, ONNX and PyTorch.

Kernels are HWIO here and in Keras, OIHW in ONNX and PyTorch; dense kernels are in × out here and in Keras, out × in in
PyTorch. Keras flattens maps in the order height, width, channel; PyTorch in the order channel, height, width.
"""

import math
import re
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from vision_transfer.models.pretrained.tensors import Layout, Shapes, StoredTensor, Wanted

KERNEL, BIAS = "kernel", "bias"
# Rank of a convolution's kernel.
CONVOLUTION_RANK = 4
# torchvision's classifier is linear, ReLU, dropout, linear, ReLU, dropout, linear.
LAYERS_PER_TORCHVISION_DENSE = 3
# timm's names of the same three layers.
TIMM_DENSE = ("pre_logits.fc1", "pre_logits.fc2", "head.fc")
TORCH_FIRST_KERNEL = "features.0.weight"
TORCH_PARAMETERS = {KERNEL: "weight", BIAS: "bias"}


def by_keras_names(stored: Sequence[StoredTensor], shapes: Shapes) -> list[Wanted]:
    """Tensors whose last word is the parameter, with the layer's name among the others; all in Keras's layout."""

    def is_it(tensor: StoredTensor, layer: str, parameter: str) -> bool:
        return layer in tensor.words[:-1] and tensor.words[-1] == parameter

    return _matched(stored, shapes, is_it, lambda layer, parameter: (Layout(shapes[layer][parameter]),))


def by_onnx_names(stored: Sequence[StoredTensor], shapes: Shapes) -> list[Wanted]:
    """Tensors with the layer's name, possibly numbered, as a word (`functional_1/block1_conv1_1/Squeeze:0`).

    The tensors of a layer are distinguished by their number of dimensions. Kernels of convolutions are OIHW; those of
    dense layers are in × out, as converters from Keras leave them.
    """

    def is_it(tensor: StoredTensor, layer: str, parameter: str) -> bool:
        has_name = any(word == layer or re.sub(r"_\d+$", "", word) == layer for word in tensor.words)
        return has_name and len(tensor.shape) == len(shapes[layer][parameter])

    return _matched(stored, shapes, is_it, lambda layer, parameter: (_oihw_or_same(shapes[layer][parameter]),))


def has_torch_names(stored: Sequence[StoredTensor]) -> bool:
    """Whether the tensors have torchvision's and timm's names of a VGG."""
    return any(tensor.name == TORCH_FIRST_KERNEL for tensor in stored)


def by_torch_names(stored: Sequence[StoredTensor], shapes: Shapes) -> list[Wanted]:
    """Tensors named as in torchvision's and timm's VGG (without batch norm), for a network with Keras's names."""
    modules = _torch_modules(shapes)

    def is_it(tensor: StoredTensor, layer: str, parameter: str) -> bool:
        return tensor.name in {f"{module}.{TORCH_PARAMETERS.get(parameter, parameter)}" for module in modules[layer]}

    return _matched(stored, shapes, is_it, partial(_torch_layouts, shapes))


def _matched(
    stored: Sequence[StoredTensor],
    shapes: Shapes,
    is_it: Callable[[StoredTensor, str, str], bool],
    layouts: Callable[[str, str], tuple[Layout, ...]],
) -> list[Wanted]:
    """Each tensor of the network, with the tensors of the file that may be it and its layouts."""
    return [
        Wanted(
            layer,
            parameter,
            shape,
            tuple(tensor for tensor in stored if is_it(tensor, layer, parameter)),
            layouts(layer, parameter),
        )
        for layer, parameters in shapes.items()
        for parameter, shape in parameters.items()
    ]


def _torch_modules(shapes: Shapes) -> dict[str, tuple[str, ...]]:
    """Keras's layer → its names in torchvision and timm. Blocks are convolutions with ReLUs, then a pool."""
    modules: dict[str, tuple[str, ...]] = {}
    place, block = 0, None
    dense = 0
    for layer, parameters in shapes.items():
        rank = len(parameters.get(KERNEL, ()))
        if rank == CONVOLUTION_RANK:
            if block not in (None, layer.split("_")[0]):
                place += 1
            block = layer.split("_")[0]
            modules[layer] = (f"features.{place}",)
            place += 2
        else:
            timm = TIMM_DENSE[dense : dense + 1]
            modules[layer] = (f"classifier.{LAYERS_PER_TORCHVISION_DENSE * dense}", *timm)
            dense += 1
    return modules


def _torch_layouts(shapes: Shapes, layer: str, parameter: str) -> tuple[Layout, ...]:
    shape = shapes[layer][parameter]
    if parameter != KERNEL or len(shape) == CONVOLUTION_RANK:
        return (_oihw_or_same(shape),)
    inputs, outputs = shape
    channels, side = _flattened_map(shapes, layer, inputs)
    return (
        Layout((outputs, inputs), _dense_to_keras(outputs, channels, side)),
        # timm keeps dense layers as convolutions over the whole map
        Layout((outputs, channels, side, side), _dense_to_keras(outputs, channels, side)),
    )


def _flattened_map(shapes: Shapes, layer: str, inputs: int) -> tuple[int, int]:
    """Channels and side of the square map that is flattened before a dense layer; (inputs, 1) if there is none."""
    layers = list(shapes)
    before = layers[layers.index(layer) - 1]
    kernel = shapes[before].get(KERNEL, (1,))
    side = math.isqrt(inputs // kernel[-1])
    is_map = len(kernel) == CONVOLUTION_RANK and side * side * kernel[-1] == inputs
    return (kernel[-1], side) if is_map else (inputs, 1)


def _dense_to_keras(outputs: int, channels: int, side: int) -> Callable[[np.ndarray], np.ndarray]:
    def convert(kernel: np.ndarray) -> np.ndarray:
        return kernel.reshape(outputs, channels, side, side).transpose(2, 3, 1, 0).reshape(-1, outputs)

    return convert


def _oihw_or_same(shape: tuple[int, ...]) -> Layout:
    """The layout OIHW of a convolution's kernel, which is HWIO here; for any other tensor the same layout as here."""
    if len(shape) != CONVOLUTION_RANK:
        return Layout(shape)
    height, width, inputs, outputs = shape
    return Layout((outputs, inputs, height, width), lambda kernel: kernel.transpose(2, 3, 1, 0))

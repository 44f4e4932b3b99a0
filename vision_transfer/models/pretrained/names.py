"""Which tensor of a file is which tensor of the network, and how its axes lie: Keras's, ONNX's and PyTorch's ways.

Kernels are HWIO here and in Keras, OIHW in ONNX and PyTorch; dense kernels are in × out here and in Keras, out × in in
PyTorch. What Keras flattens is in the order height, width, channel; in PyTorch it is channel, height, width.
"""

import math
import re
from collections.abc import Callable, Sequence

import numpy as np

from vision_transfer.models.pretrained.tensors import Layout, Shapes, StoredTensor, Wanted, as_stored

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
    return [
        Wanted(
            layer,
            parameter,
            shape,
            tuple(tensor for tensor in stored if layer in tensor.words[:-1] and tensor.words[-1] == parameter),
            (Layout(shape, as_stored),),
        )
        for layer, parameters in shapes.items()
        for parameter, shape in parameters.items()
    ]


def by_onnx_names(stored: Sequence[StoredTensor], shapes: Shapes) -> list[Wanted]:
    """Tensors that have the layer's name, perhaps numbered, as a word (`functional_1/block1_conv1_1/Squeeze:0`).

    A layer's tensors are told apart by their number of dimensions. Kernels of convolutions are OIHW; those of dense
    layers are in × out, as converters from Keras leave them.
    """

    def of_layer(layer: str, rank: int) -> tuple[StoredTensor, ...]:
        return tuple(
            tensor
            for tensor in stored
            if len(tensor.shape) == rank
            and any(word == layer or re.sub(r"_\d+$", "", word) == layer for word in tensor.words)
        )

    return [
        Wanted(layer, parameter, shape, of_layer(layer, len(shape)), (_oihw(shape) or Layout(shape, as_stored),))
        for layer, parameters in shapes.items()
        for parameter, shape in parameters.items()
    ]


def has_torch_names(stored: Sequence[StoredTensor]) -> bool:
    """Whether the tensors are named as torchvision and timm name those of a VGG."""
    return any(tensor.name == TORCH_FIRST_KERNEL for tensor in stored)


def by_torch_names(stored: Sequence[StoredTensor], shapes: Shapes) -> list[Wanted]:
    """Tensors named as in torchvision's and timm's VGG (without batch norm), for a network in Keras's names."""
    modules = _torch_modules(shapes)
    return [
        Wanted(
            layer,
            parameter,
            shape,
            tuple(
                tensor
                for tensor in stored
                for module in modules[layer]
                if tensor.name == f"{module}.{TORCH_PARAMETERS.get(parameter, parameter)}"
            ),
            _torch_layouts(shapes, layer, parameter),
        )
        for layer, parameters in shapes.items()
        for parameter, shape in parameters.items()
    ]


def _torch_modules(shapes: Shapes) -> dict[str, tuple[str, ...]]:
    """Keras's layer → its names in torchvision and timm. Each block is convolutions with ReLUs between, then a pool."""
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
    if parameter != KERNEL:
        return (Layout(shape, as_stored),)
    if convolution := _oihw(shape):
        return (convolution,)
    inputs, outputs = shape
    channels, side = _flattened_map(shapes, layer, inputs)
    return (
        Layout((outputs, inputs), _dense_to_keras(outputs, channels, side)),
        # timm keeps dense layers as convolutions over the whole map
        Layout((outputs, channels, side, side), _dense_to_keras(outputs, channels, side)),
    )


def _flattened_map(shapes: Shapes, layer: str, inputs: int) -> tuple[int, int]:
    """Channels and side of the square map that a dense layer sees flattened; (inputs, 1) where it sees no map."""
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


def _oihw(shape: tuple[int, ...]) -> Layout | None:
    """The layout OIHW for a kernel that is HWIO with us; None for anything but a convolution's kernel."""
    if len(shape) != CONVOLUTION_RANK:
        return None
    height, width, inputs, outputs = shape
    return Layout((outputs, inputs, height, width), lambda kernel: kernel.transpose(2, 3, 1, 0))

"""The rows of a table of layers: plain data, without parameters or computation.

A network is a tuple of these rows, in order. Names are Keras's where Keras has the layer (`block5_conv1`). A row names
the block that it belongs to (`block5`); a layer outside of blocks is a block by itself.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from vision_transfer.errors import UserError

Activation = Literal["linear", "relu"]
Padding = Literal["valid", "same"]


@dataclass(frozen=True)
class Conv:
    """A square 2-D convolution of stride 1 with bias, then its activation."""

    name: str
    features: int
    kernel_size: int = 3
    padding: Padding = "valid"
    activation: Activation = "relu"
    block: str = ""


@dataclass(frozen=True)
class MaxPool:
    """Max-pooling with stride equal to its size; incomplete windows are dropped (Keras's `valid`)."""

    name: str
    size: int = 2
    block: str = ""


@dataclass(frozen=True)
class BatchNorm:
    """Batch normalisation over all but the last axis, then its activation; Keras's defaults."""

    name: str
    momentum: float = 0.99
    epsilon: float = 1e-3
    activation: Activation = "linear"
    block: str = ""


@dataclass(frozen=True)
class GlobalAveragePool:
    """Mean over height and width."""

    name: str


@dataclass(frozen=True)
class Flatten:
    """Height, width and channels in one axis, in that order."""

    name: str


@dataclass(frozen=True)
class Dense:
    """A fully connected layer with bias, then its activation."""

    name: str
    features: int
    activation: Activation = "linear"


@dataclass(frozen=True)
class Dropout:
    """Sets a fraction `rate` of the values to zero in training and scales the others by 1 / (1 - rate)."""

    name: str
    rate: float


Layer = Conv | MaxPool | BatchNorm | GlobalAveragePool | Flatten | Dense | Dropout

# Keras's `layers[:-N]` of a base counts the input, convolutions, pools, batch norms and the global pooling that belongs
# to the base; Flatten and the head are not layers of the base.
COUNTED_BY_KERAS = (Conv, MaxPool, BatchNorm, GlobalAveragePool)


def layer_names(layers: Iterable[Layer]) -> tuple[str, ...]:
    """The names of the layers, in order."""
    return tuple(layer.name for layer in layers)


def block_of(layer: Layer) -> str:
    """The block that a layer belongs to according to its row; the layer's own name if its row names none."""
    return getattr(layer, "block", "") or layer.name


def blocks(layers: Iterable[Layer]) -> list[tuple[str, tuple[Layer, ...]]]:
    """The name and the layers of each block of a table, in order."""
    return [(name, tuple(members)) for name, members in groupby(layers, block_of)]


def block_starts(layers: Iterable[Layer]) -> tuple[str, ...]:
    """The first convolution of each block that has one, in order."""
    convolutions = [[layer.name for layer in members if isinstance(layer, Conv)] for _, members in blocks(layers)]
    return tuple(names[0] for names in convolutions if names)


def output_shape(layer: Layer, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of one example after `layer`, given its shape before: `(height, width, channels)` or `(features,)`.

    Raises:
        UserError: the layer does not fit the shape, such as a 3×3 `valid` convolution on a 2×2 map.
    """
    match layer:
        case Conv():
            height, width, _ = _require_map(layer, shape)
            lost = layer.kernel_size - 1 if layer.padding == "valid" else 0
            return _require_positive(layer, shape, (height - lost, width - lost, layer.features))
        case MaxPool():
            height, width, channels = _require_map(layer, shape)
            return _require_positive(layer, shape, (height // layer.size, width // layer.size, channels))
        case GlobalAveragePool():
            return (_require_map(layer, shape)[-1],)
        case Flatten():
            return (math.prod(shape),)
        case Dense():
            if len(shape) != 1:
                raise UserError(
                    f"layer {layer.name!r}: Dense takes a vector, got a map of shape {shape}; put Flatten or "
                    "GlobalAveragePool before it"
                )
            return (layer.features,)
        case BatchNorm() | Dropout():
            return shape


def parameter_shapes(layer: Layer, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Shapes of the layer's parameters, given the shape of one example before it; empty if it has none."""
    match layer:
        case Conv():
            size = layer.kernel_size
            return {"kernel": (size, size, shape[-1], layer.features), "bias": (layer.features,)}
        case Dense():
            return {"kernel": (shape[-1], layer.features), "bias": (layer.features,)}
        case BatchNorm():
            return {"scale": (shape[-1],), "bias": (shape[-1],)}
        case _:
            return {}


def _require_map(layer: Layer, shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) != 3:
        raise UserError(
            f"layer {layer.name!r}: {type(layer).__name__} takes (height, width, channels), got shape {shape}"
        )
    return shape


def _require_positive(layer: Layer, before: tuple[int, ...], after: tuple[int, ...]) -> tuple[int, ...]:
    if min(after) < 1:
        raise UserError(
            f"layer {layer.name!r}: its input of {before[0]}×{before[1]} is too small for it; use larger images "
            "(config.dataset.image_size) or stop at an earlier layer (config.model.backbone_output)"
        )
    return after

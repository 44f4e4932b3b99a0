"""Shapes that follow from a table: of each layer's inputs and output for one example, and of its parameters."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vision_transfer.errors import UserError, nearest_names
from vision_transfer.models.layers import (
    AveragePool,
    BatchNorm,
    Block,
    Conv,
    Dense,
    DepthwiseConv,
    Flatten,
    GlobalAveragePool,
    Layer,
    MaxPool,
    Merge,
    Padding,
    PoolLayers,
    Row,
    SeparableConv,
    ZeroPad,
    layers_of,
    stage_of,
)
from vision_transfer.models.ops.windows import Margins, grid_windows, margins_of, output_extents

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Place:
    """A layer in a network.

    Attributes:
        layer: its row.
        entry: name of the row of the table that it is, or that it is inside of.
        stage: of that row.
        inputs: shapes of one example before it; more than one only for a merge and for pooled layers.
        output: shape of one example after it.
    """

    layer: Layer
    entry: str
    stage: str
    inputs: tuple[Shape, ...]
    output: Shape

    @property
    def before(self) -> Shape:
        """Shape of its only, or its first, input."""
        return self.inputs[0]


def places(rows: Sequence[Row], shape: Shape) -> tuple[Place, ...]:
    """All layers of a table in Keras's order, given the shape of one example before the first.

    Raises:
        UserError: a layer does not fit the shape before it, such as a 3×3 `valid` convolution on a 2×2 map.
    """
    found: list[Place] = []
    earlier: dict[str, Shape] = {}
    for row in rows:
        shapes: dict[str, tuple[tuple[Shape, ...], Shape]] = {}
        earlier[row.name] = shape = _enter(row, shape, shapes, earlier)
        found += [Place(layer, row.name, stage_of(row), *shapes[layer.name]) for layer in layers_of([row])]
    return tuple(found)


def output_shape(row: Row, shape: Shape, earlier: Mapping[str, Shape] | None = None) -> Shape:
    """Shape of one example after `row`, given its shape before: `(height, width, channels)` or `(features,)`.

    `earlier` has the shapes after earlier rows by name, for a row that pools them.

    Raises:
        UserError: the row does not fit the shape.
    """
    return _enter(row, shape, {}, earlier or {})


def parameter_shapes(layer: Layer, before: Shape) -> dict[str, Shape]:
    """Shapes of the layer's parameters, given the shape of one example before it; empty if it has none.

    Kernels are `(height, width, inputs, outputs)`, depthwise ones `(height, width, channels, 1)`.
    """
    match layer:
        case Conv(features=features, kernel_size=size):
            kernels = {"kernel": (size, size, before[-1], features)}
        case DepthwiseConv(kernel_size=size):
            features, kernels = before[-1], {"kernel": (size, size, before[-1], 1)}
        case SeparableConv(features=features, kernel_size=size):
            kernels = {
                "depthwise_kernel": (size, size, before[-1], 1),
                "pointwise_kernel": (1, 1, before[-1], features),
            }
        case Dense(features=features):
            return {"kernel": (before[-1], features), "bias": (features,)}
        case BatchNorm():
            return {"scale": (before[-1],), "bias": (before[-1],)}
        case _:
            return {}
    return {**kernels, "bias": (features,)} if layer.bias else kernels


def zeros_around(layer: ZeroPad, extents: tuple[int, ...]) -> Margins:
    """Zeros before and after the height and the width, for a map of these extents."""
    return margins_of(layer.padding, extents, (layer.size, layer.size), (layer.strides, layer.strides))


def pooled_width(layer: PoolLayers, pooled: Shape) -> int:
    """The number of features that pooled layers make of one map of this shape: one for each cell and channel."""
    height, width = (grid_windows(extent, layer.grid)[0] for extent in pooled[:2])
    return height * width * pooled[-1]


def _enter(
    row: Row, shape: Shape, shapes: dict[str, tuple[tuple[Shape, ...], Shape]], earlier: Mapping[str, Shape]
) -> Shape:
    """The shape after `row`; enters each layer's inputs and output into `shapes`."""
    if isinstance(row, PoolLayers):
        pooled = _pooled(row, earlier)
        shapes[row.name] = (pooled, (sum(pooled_width(row, shape) for shape in pooled),))
        return shapes[row.name][1]
    if not isinstance(row, Block):
        after = _after(row, shape)
        shapes[row.name] = ((shape,), after)
        return after
    inputs: list[Shape] = []
    for branch in row.branches:
        after = shape
        for inner in branch:
            after = _enter(inner, after, shapes, {})
        inputs.append(after)
    merged = _merged(row.merge, inputs)
    shapes[row.merge.name] = (tuple(inputs), merged)
    return merged


def _pooled(layer: PoolLayers, earlier: Mapping[str, Shape]) -> tuple[Shape, ...]:
    """Shapes of the outputs that are pooled."""
    for name in layer.layers:
        if name not in earlier:
            raise UserError(f"layer {layer.name!r}: no row {name!r} before it; {nearest_names(name, tuple(earlier))}")
    if not layer.layers:
        raise UserError(f"layer {layer.name!r}: there is no layer to pool")
    return tuple(_require_map(layer, earlier[name]) for name in layer.layers)


def _merged(merge: Merge, inputs: list[Shape]) -> Shape:
    maps = {shape[:-1] for shape in inputs}
    if merge.kind == "concat" and len(maps) == 1:
        return (*inputs[0][:-1], sum(shape[-1] for shape in inputs))
    if merge.kind == "multiply":
        maps.discard((1, 1))
    if len(maps) <= 1 and len({shape[-1] for shape in inputs}) == 1:
        return max(inputs, key=math.prod)
    raise UserError(f"layer {merge.name!r}: cannot {merge.kind} branches of shapes {', '.join(map(str, inputs))}")


def _after(layer: Layer, shape: Shape) -> Shape:
    match layer:
        case Conv() | DepthwiseConv() | SeparableConv():
            strides = 1 if isinstance(layer, SeparableConv) else layer.strides
            features = shape[-1] if isinstance(layer, DepthwiseConv) else layer.features
            return (*_windows(layer, shape, layer.kernel_size, strides, layer.padding), features)
        case MaxPool():
            strides = layer.strides or layer.size
            return (*_windows(layer, shape, layer.size, strides, layer.padding), shape[-1])
        case AveragePool():
            return (*_windows(layer, shape, layer.size, layer.size, "valid"), shape[-1])
        case ZeroPad():
            height, width, channels = _require_map(layer, shape)
            rows, columns = zeros_around(layer, (height, width))
            return (height + sum(rows), width + sum(columns), channels)
        case GlobalAveragePool():
            channels = _require_map(layer, shape)[-1]
            return (1, 1, channels) if layer.keep_axes else (channels,)
        case Flatten():
            return (math.prod(shape),)
        case Dense():
            if len(shape) != 1:
                raise UserError(
                    f"layer {layer.name!r}: Dense takes a vector, got a map of shape {shape}; put Flatten or "
                    "GlobalAveragePool before it"
                )
            return (layer.features,)
        case _:
            return shape


def _windows(layer: Layer, shape: Shape, size: int, strides: int, padding: Padding) -> Shape:
    """Numbers of windows down and across."""
    height, width, _ = _require_map(layer, shape)
    sizes, steps, map_extents = (size, size), (strides, strides), (height, width)
    extents = output_extents(margins_of(padding, map_extents, sizes, steps), map_extents, sizes, steps)
    if min(extents) < 1:
        raise UserError(
            f"layer {layer.name!r}: its input of {height}×{width} is too small for it; use larger images "
            "(config.dataset.image_size) or stop at an earlier layer (config.model.backbone_output)"
        )
    return extents


def _require_map(layer: Layer, shape: Shape) -> Shape:
    if len(shape) != 3:
        raise UserError(
            f"layer {layer.name!r}: {type(layer).__name__} takes (height, width, channels), got shape {shape}"
        )
    return shape

"""The rows of a table of layers: plain data, without parameters or computation.

A network is a tuple of rows, in order: layers, and blocks whose branches are rows again. One tensor passes from row to
row, so a network can be cut before any row, and edges never leave a block. Names are Keras's where Keras has the layer
(`block5_conv1`). A row names the stage of the network that it belongs to (`block5`, `conv4`); a row that names none is
a stage by itself.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby, pairwise
from typing import Any, Literal

from vision_transfer.models.ops.windows import WindowPadding

Activation = Literal["linear", "relu", "relu6", "swish", "sigmoid"]
# `same` is TensorFlow's: with a stride, the odd zero comes after the map. PyTorch's paddings are margins.
Padding = WindowPadding


@dataclass(frozen=True)
class Conv:
    """A square 2-D convolution, then its activation."""

    name: str
    features: int
    kernel_size: int = 3
    padding: Padding = "valid"
    activation: Activation = "relu"
    stage: str = ""
    strides: int = 1
    bias: bool = True


@dataclass(frozen=True)
class DepthwiseConv:
    """A square 2-D convolution of each channel by itself, then its activation."""

    name: str
    kernel_size: int = 3
    padding: Padding = "same"
    activation: Activation = "linear"
    stage: str = ""
    strides: int = 1
    bias: bool = False


@dataclass(frozen=True)
class SeparableConv:
    """A depthwise convolution of stride 1, then a 1×1 convolution, then its activation (Chollet 2017)."""

    name: str
    features: int
    kernel_size: int = 3
    padding: Padding = "same"
    activation: Activation = "linear"
    stage: str = ""
    bias: bool = False


@dataclass(frozen=True)
class MaxPool:
    """Max-pooling; without `strides`, the stride is its size. Incomplete windows are dropped if padding is `valid`."""

    name: str
    size: int = 2
    stage: str = ""
    strides: int | None = None
    padding: Padding = "valid"


@dataclass(frozen=True)
class AveragePool:
    """Means of disjoint windows; incomplete windows are dropped (Keras's `valid`)."""

    name: str
    size: int = 2
    stage: str = ""


@dataclass(frozen=True)
class ZeroPad:
    """Zeros around the map: margins, or (`same`) those that a `valid` window of this size and stride after it needs."""

    name: str
    padding: Padding
    stage: str = ""
    size: int = 1
    strides: int = 1


@dataclass(frozen=True)
class BatchNorm:
    """Batch normalisation over all but the last axis, then its activation; Keras's defaults."""

    name: str
    momentum: float = 0.99
    epsilon: float = 1e-3
    activation: Activation = "linear"
    stage: str = ""


@dataclass(frozen=True)
class Activate:
    """An activation that is a layer of its own, as in Keras's tables."""

    name: str
    activation: Activation = "relu"
    stage: str = ""


@dataclass(frozen=True)
class GlobalAveragePool:
    """Mean over height and width, which become 1×1 with `keep_axes` and disappear otherwise."""

    name: str
    stage: str = ""
    keep_axes: bool = False


@dataclass(frozen=True)
class PoolLayers:
    """The means of the outputs of earlier rows over the cells of a grid, one after the other.

    It ends a backbone, so that a head sees all depths (Head2Toe, Evci et al. 2022); `layers` names rows of the table
    that it is in. A grid of 1 is the mean over height and width; one of 2 keeps the quarters of a map apart, so that a
    head sees where something is (spatial pyramids, Lazebnik et al. 2006).
    """

    name: str
    layers: tuple[str, ...]
    grid: int = 1


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


@dataclass(frozen=True)
class Merge:
    """The end of a block: the sum, the product or the concatenated channels of its branches' outputs, in their order.

    In a product, a branch of 1×1 is repeated over the map (squeeze-excite).
    """

    name: str
    kind: Literal["add", "concat", "multiply"]


@dataclass(frozen=True)
class Block:
    """Branches from one tensor to one merge; a branch without rows is the identity."""

    name: str
    branches: tuple[tuple["Row", ...], ...]
    merge: Merge
    stage: str = ""


Layer = (
    Conv
    | DepthwiseConv
    | SeparableConv
    | MaxPool
    | AveragePool
    | ZeroPad
    | BatchNorm
    | Activate
    | GlobalAveragePool
    | PoolLayers
    | Flatten
    | Dense
    | Dropout
    | Merge
)
Row = Layer | Block

CONVOLUTIONS = (Conv, DepthwiseConv, SeparableConv)
# Keras's `layers[:-N]` of a base counts the input and all layers but these, which belong to heads.
NOT_COUNTED_BY_KERAS = (PoolLayers, Flatten, Dense, Dropout)


def layer_names(rows: Iterable[Row]) -> tuple[str, ...]:
    """The names of the rows, in order; those of blocks, not of the layers inside."""
    return tuple(row.name for row in rows)


def stage_of(row: Row) -> str:
    """The stage that a row of a table belongs to; the row's own name if it names none."""
    return getattr(row, "stage", "") or row.name


def layers_of(rows: Iterable[Row]) -> tuple[Layer, ...]:
    """All layers of the rows, those inside blocks and merges included, in the order of Keras's `model.layers`.

    Inside a block, Keras orders layers by their distance to the merge, and by the order of branches where that is equal
    (keras/src/ops/function.py).
    """
    return tuple(layer for row in rows for layer in _layers_of_row(row))


def has_blocks(rows: Iterable[Row]) -> bool:
    """Whether some of the rows are blocks, as in a network with branches."""
    return any(isinstance(row, Block) for row in rows)


def is_light(rows: Iterable[Row]) -> bool:
    """Whether the rows have depthwise convolutions, whose cost on a CPU is that of moving maps to and from memory."""
    return any(isinstance(layer, DepthwiseConv | SeparableConv) for layer in layers_of(rows))


def stages(rows: Iterable[Row]) -> list[tuple[str, tuple[Layer, ...]]]:
    """The name and the layers of each stage of a table, in order."""
    return [(name, layers_of(members)) for name, members in groupby(rows, stage_of)]


def stage_ends(rows: Sequence[Row]) -> tuple[Row, ...]:
    """The pools, and the last row of each stage that is named."""
    return tuple(
        row
        for row, following in zip(rows, (*rows[1:], None), strict=False)
        if isinstance(row, MaxPool | GlobalAveragePool | PoolLayers)
        or (getattr(row, "stage", "") and (following is None or stage_of(row) != stage_of(following)))
    )


def row_numbers(rows: Iterable[Row]) -> dict[str, int]:
    """The number of the row that each layer is, or is inside of; and of each block, by their names."""
    found: dict[str, int] = {}
    for number, row in enumerate(rows):
        found |= dict.fromkeys((row.name, *layer_names(layers_of([row]))), number)
    return found


def stage_starts(rows: Iterable[Row]) -> tuple[str, ...]:
    """The first convolution of each stage that has one, in order."""
    convolutions = [[layer.name for layer in members if isinstance(layer, CONVOLUTIONS)] for _, members in stages(rows)]
    return tuple(names[0] for names in convolutions if names)


def sequences(rows: Sequence[Row]) -> Iterable[Sequence[Row]]:
    """The rows themselves, and the rows of each branch of each block inside."""
    yield rows
    for row in rows:
        if isinstance(row, Block):
            for branch in row.branches:
                yield from sequences(branch)


def rows_pooled_later(rows: Sequence[Row]) -> frozenset[str]:
    """Names of the rows whose own outputs a later row pools."""
    return frozenset(name for row in rows if isinstance(row, PoolLayers) for name in row.layers)


def norms_after(rows: Sequence[Row]) -> dict[str, BatchNorm]:
    """Convolution → the batch norm directly after it, for linear convolutions that have one.

    Convolutions whose own outputs are pooled later are left out.
    """
    pooled = rows_pooled_later(rows)
    return {
        row.name: following
        for sequence in sequences(rows)
        for row, following in pairwise(sequence)
        if isinstance(row, CONVOLUTIONS) and row.activation == "linear" and isinstance(following, BatchNorm)
        if row.name not in pooled
    }


def description(row: Row) -> dict[str, Any]:
    """The row as JSON values, with the kinds of all rows inside, which `dataclasses.asdict` leaves out."""
    if not isinstance(row, Block):
        return {"kind": type(row).__name__, **asdict(row)}
    branches = [[description(inner) for inner in branch] for branch in row.branches]
    return {"kind": "Block", "name": row.name, "branches": branches, "merge": description(row.merge)}


def _layers_of_row(row: Row) -> Iterable[Layer]:
    if not isinstance(row, Block):
        return (row,)
    placed = sorted(_distances(row), key=lambda pair: -pair[0])
    return (layer for _, layer in placed)


def _distances(row: Row) -> list[tuple[int, Layer]]:
    """Each layer of the row with its distance to the row's output: the merge has 0."""
    if not isinstance(row, Block):
        return [(0, row)]
    found: list[tuple[int, Layer]] = []
    for branch in row.branches:
        beyond = 1
        inside: list[tuple[int, Layer]] = []
        for inner in reversed(branch):
            placed = _distances(inner)
            inside = [(distance + beyond, layer) for distance, layer in placed] + inside
            beyond += 1 + max(distance for distance, _ in placed)
        found += inside
    return [*found, (0, row.merge)]

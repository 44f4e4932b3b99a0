"""FLOPs and bytes of a network and of its training step, from the layer table alone.

A multiplication and an addition are two FLOPs. Like XLA's own cost analysis, this does not count products with the
zeros of a padding. Bytes assume that each operation reads its operands from memory and writes its results there once;
a compiler that fuses operations moves fewer, one that pads or copies moves more.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from vision_transfer.freezing import Mask
from vision_transfer.models.layer_stack import takes_norm
from vision_transfer.models.layers import (
    Activate,
    Activation,
    AveragePool,
    BatchNorm,
    Block,
    Conv,
    Dense,
    DepthwiseConv,
    GlobalAveragePool,
    Layer,
    MaxPool,
    Merge,
    PoolLayers,
    Row,
    SeparableConv,
    layer_names,
    layers_of,
    norms_after,
)
from vision_transfer.models.network import Network
from vision_transfer.models.ops.windows import margins_of
from vision_transfer.models.shapes import Place, parameter_shapes

PARAMETER_BYTES = 4
# An update reads the parameter, its gradient and one moment, and writes the parameter and the moment.
UPDATE_TRANSFERS = 5
# Scale and shift, where the norm is not part of the kernel of the convolution before it.
NORM_OPERATIONS = 2
# Of an activation for one value: comparisons; an exponential counts as one operation.
OPERATIONS: dict[Activation, int] = {"linear": 0, "relu": 1, "relu6": 2, "sigmoid": 3, "swish": 4}


@dataclass(frozen=True)
class Cost:
    """Floating-point operations, and bytes moved."""

    flops: int = 0
    bytes: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        """The cost of both."""
        return Cost(self.flops + other.flops, self.bytes + other.bytes)


@dataclass(frozen=True)
class LayerCost:
    """Costs of one layer for a batch: its output, the gradient of its input, and the gradients of its parameters.

    The last includes the update of the parameters.
    """

    name: str
    forward: Cost
    input_gradient: Cost = Cost()
    kernel_gradient: Cost = Cost()

    @property
    def total(self) -> Cost:
        """The sum of all three."""
        return self.forward + self.input_gradient + self.kernel_gradient


def layer_costs(network: Network, batch: int) -> list[LayerCost]:
    """All layers with all their gradients, for `batch` images."""
    itemsize = network.numerics.dtype.itemsize
    norms = norms_after(network.rows)
    folded = {norms[layer.name].name for layer in network.layers if layer.name in norms and takes_norm(layer)}
    return [_layer_cost(place, batch, itemsize, folded=place.layer.name in folded) for place in network.places]


def forward_costs(network: Network, batch: int, start: str | None = None) -> list[LayerCost]:
    """The layers from `start` on, without gradients."""
    return [LayerCost(row.name, row.forward) for row in _running(network, batch, start)]


def prefix_flops(network: Network, layer: str, images: int) -> int:
    """Operations of the layers up to this one, for so many images."""
    after = total(forward_costs(network, images, network.after(layer))).flops
    return total(forward_costs(network, images)).flops - after


def step_costs(network: Network, mask: Mask, batch: int, start: str | None = None) -> list[LayerCost]:
    """The layers from `start` on for a training step under a mask.

    All of them run forward. Gradients of inputs are computed only after the cut, those of parameters only for layers
    that train.
    """
    trained = _behind_something_trainable(network.rows, mask)
    return [
        LayerCost(
            row.name,
            row.forward,
            row.input_gradient if row.name in trained else Cost(),
            row.kernel_gradient if any(mask.get(row.name, {}).values()) else Cost(),
        )
        for row in _running(network, batch, start)
    ]


def _running(network: Network, batch: int, start: str | None) -> list[LayerCost]:
    running = set(layer_names(layers_of(network.between(start))))
    return [row for row in layer_costs(network, batch) if row.name in running]


def _behind_something_trainable(rows: Sequence[Row], mask: Mask, behind: bool = False) -> set[str]:
    """Layers whose input depends on something trainable, so that its gradient is computed."""
    found: set[str] = set()
    for row in rows:
        if isinstance(row, Block):
            for branch in row.branches:
                found |= _behind_something_trainable(branch, mask, behind)
        names = layer_names(layers_of([row]))
        trains = any(any(mask.get(name, {}).values()) for name in names)
        if isinstance(row, Block) and (behind or trains):
            found.add(row.merge.name)
        elif behind:
            found.add(row.name)
        behind = behind or trains
    return found


def total(costs: list[LayerCost]) -> Cost:
    """The sum over layers."""
    return sum((row.total for row in costs), Cost())


def _layer_cost(place: Place, batch: int, itemsize: int, *, folded: bool) -> LayerCost:
    layer = place.layer
    inputs, outputs = batch * sum(map(math.prod, place.inputs)), batch * math.prod(place.output)
    products = 2 * batch * _multiplications(place)
    parameters = sum(math.prod(shape) for shape in parameter_shapes(layer, place.before).values())
    moved = (inputs + outputs) * itemsize + parameters * PARAMETER_BYTES
    update = parameters * PARAMETER_BYTES * UPDATE_TRANSFERS
    return LayerCost(
        layer.name,
        forward=Cost(products + _elementwise(layer, inputs, outputs, folded), moved),
        input_gradient=Cost(products, moved),
        kernel_gradient=Cost(products + outputs, moved + update) if parameters else Cost(),
    )


def _multiplications(place: Place) -> int:
    """Multiplications for one image."""
    layer, before, after = place.layer, place.before, place.output
    match layer:
        case Conv():
            return _taps(place, layer, layer.strides) * before[2] * after[2]
        case DepthwiseConv():
            return _taps(place, layer, layer.strides) * after[2]
        case SeparableConv():
            return _taps(place, layer, 1) * before[2] + math.prod(after) * before[2]
        case Dense():
            return before[0] * after[0]
        case _:
            return 0


def _taps(place: Place, layer: Conv | DepthwiseConv | SeparableConv, strides: int) -> int:
    """Kernel elements that meet the map rather than its padding, summed over all positions of the output."""
    size, extents = layer.kernel_size, (place.before[0], place.before[1])
    along_axes = [
        sum(
            min(first + size, extent) - max(first, 0)
            for first in range(-zeros[0], outputs * strides - zeros[0], strides)
        )
        for extent, outputs, zeros in zip(
            extents, place.output[:2], margins_of(layer.padding, extents, (size, size), (strides, strides)), strict=True
        )
    ]
    return math.prod(along_axes)


def _elementwise(layer: Layer, inputs: int, outputs: int, folded: bool) -> int:
    match layer:
        case Conv() | Dense() | DepthwiseConv() | SeparableConv():
            has_bias = isinstance(layer, Dense) or layer.bias
            return outputs * (has_bias + OPERATIONS[layer.activation])
        case Activate():
            return outputs * OPERATIONS[layer.activation]
        case MaxPool():
            return outputs * (layer.size**2 - 1)
        case GlobalAveragePool() | AveragePool() | PoolLayers():
            return inputs
        case BatchNorm():
            return outputs * ((0 if folded else NORM_OPERATIONS) + OPERATIONS[layer.activation])
        case Merge():
            return 0 if layer.kind == "concat" else inputs - outputs
        case _:
            return 0

"""FLOPs and bytes of a network and of its training step, from the layer table alone.

A multiplication and an addition are two FLOPs. Like XLA's own cost analysis, this does not count products with the
zeros of a padding. Bytes assume that each operation reads its operands from memory and writes its results there once;
a compiler that fuses operations moves fewer, one that pads or copies moves more.
"""

import math
from dataclasses import dataclass

from vision_transfer.freezing import Mask, cut
from vision_transfer.models.layers import BatchNorm, Conv, Dense, GlobalAveragePool, Layer, MaxPool, parameter_shapes
from vision_transfer.models.network import Network

PARAMETER_BYTES = 4
# An update reads the parameter, its gradient and one moment, and writes the parameter and the moment.
UPDATE_TRANSFERS = 5
# Subtract the mean, scale, shift.
NORM_OPERATIONS = 3


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
    shapes = network.shapes
    return [
        _layer_cost(layer, before, after, batch, itemsize)
        for layer, before, after in zip(network.layers, shapes, shapes[1:], strict=False)
    ]


def forward_costs(network: Network, batch: int, start: str | None = None) -> list[LayerCost]:
    """The layers from `start` on, without gradients."""
    first = 0 if start is None else network.index(start)
    return [LayerCost(row.name, row.forward) for row in layer_costs(network, batch)[first:]]


def step_costs(network: Network, mask: Mask, batch: int, start: str | None = None) -> list[LayerCost]:
    """The layers from `start` on for a training step under a mask.

    All of them run forward. Gradients of inputs are computed only after the cut, those of parameters only for layers
    that train.
    """
    first = 0 if start is None else network.index(start)
    cut_position = network.index(cut(network, mask))
    return [
        LayerCost(
            row.name,
            row.forward,
            row.input_gradient if position > cut_position else Cost(),
            row.kernel_gradient if any(mask.get(row.name, {}).values()) else Cost(),
        )
        for position, row in enumerate(layer_costs(network, batch)[first:], first)
    ]


def total(costs: list[LayerCost]) -> Cost:
    """The sum over layers."""
    return sum((row.total for row in costs), Cost())


def _layer_cost(layer: Layer, before: tuple[int, ...], after: tuple[int, ...], batch: int, itemsize: int) -> LayerCost:
    inputs, outputs = batch * math.prod(before), batch * math.prod(after)
    products = 2 * batch * _multiplications(layer, before, after)
    parameters = sum(math.prod(shape) for shape in parameter_shapes(layer, before).values())
    moved = (inputs + outputs) * itemsize + parameters * PARAMETER_BYTES
    update = parameters * PARAMETER_BYTES * UPDATE_TRANSFERS
    return LayerCost(
        layer.name,
        forward=Cost(products + _elementwise(layer, inputs, outputs), moved),
        input_gradient=Cost(products, moved),
        kernel_gradient=Cost(products + outputs, moved + update) if parameters else Cost(),
    )


def _multiplications(layer: Layer, before: tuple[int, ...], after: tuple[int, ...]) -> int:
    """Multiplications for one image."""
    match layer:
        case Conv():
            taps = [_taps(extent, outputs, layer) for extent, outputs in zip(before[:2], after[:2], strict=True)]
            return math.prod(taps) * before[2] * after[2]
        case Dense():
            return before[0] * after[0]
        case _:
            return 0


def _taps(extent: int, outputs: int, layer: Conv) -> int:
    """Kernel elements that meet the image rather than its padding, along one axis, summed over all outputs."""
    padding = (layer.kernel_size - 1) // 2 if layer.padding == "same" else 0
    firsts = (position - padding for position in range(outputs))
    return sum(min(first + layer.kernel_size, extent) - max(first, 0) for first in firsts)


def _elementwise(layer: Layer, inputs: int, outputs: int) -> int:
    match layer:
        case Conv() | Dense():
            return outputs * (1 + (layer.activation == "relu"))
        case MaxPool():
            return outputs * (layer.size**2 - 1)
        case GlobalAveragePool():
            return inputs
        case BatchNorm():
            return outputs * (NORM_OPERATIONS + (layer.activation == "relu"))
        case _:
            return 0

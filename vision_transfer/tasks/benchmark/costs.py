"""FLOPs and bytes of a network and of its training step, from the layer table alone.

A multiplication and an addition are two FLOPs. Products with the zeros of a padding are not counted, as XLA's own cost
analysis does not count them. Bytes are those of a step whose operations each read their operands from memory and write
their results there once; a compiler that fuses operations moves fewer, one that pads or copies moves more.
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
        """Both, one after the other."""
        return Cost(self.flops + other.flops, self.bytes + other.bytes)


@dataclass(frozen=True)
class LayerCost:
    """What one layer costs for a batch.

    Attributes:
        name: of the layer.
        forward: its output.
        input_gradient: the gradient of its input.
        kernel_gradient: the gradients of its parameters, and their update.
    """

    name: str
    forward: Cost
    input_gradient: Cost = Cost()
    kernel_gradient: Cost = Cost()

    @property
    def total(self) -> Cost:
        """All three."""
        return self.forward + self.input_gradient + self.kernel_gradient


def layer_costs(network: Network, batch: int) -> list[LayerCost]:
    """A row per layer with all its gradients, for `batch` images."""
    itemsize = network.numerics.dtype.itemsize
    shapes = network.shapes
    return [
        _layer_cost(layer, before, after, batch, itemsize)
        for layer, before, after in zip(network.layers, shapes, shapes[1:], strict=False)
    ]


def forward_costs(network: Network, batch: int, start: str | None = None) -> list[LayerCost]:
    """A row per layer from `start` on, without gradients."""
    first = 0 if start is None else network.index(start)
    return [LayerCost(row.name, row.forward) for row in layer_costs(network, batch)[first:]]


def step_costs(network: Network, mask: Mask, batch: int, start: str | None = None) -> list[LayerCost]:
    """A row per layer from `start` on for a training step under a mask.

    All layers run forward. The gradient of an input is computed behind the cut only, that of a kernel only where it
    trains.
    """
    first = 0 if start is None else network.index(start)
    cut_position = network.index(cut(network, mask))
    rows = []
    for position, row in enumerate(layer_costs(network, batch)):
        if position < first:
            continue
        trains = any(mask.get(row.name, {}).values())
        rows.append(
            LayerCost(
                row.name,
                row.forward,
                row.input_gradient if position > cut_position else Cost(),
                row.kernel_gradient if trains else Cost(),
            )
        )
    return rows


def total(costs: list[LayerCost]) -> Cost:
    """The sum over layers."""
    return sum((row.total for row in costs), Cost())


def _layer_cost(layer: Layer, before: tuple[int, ...], after: tuple[int, ...], batch: int, itemsize: int) -> LayerCost:
    inputs, outputs = batch * math.prod(before), batch * math.prod(after)
    products = 2 * batch * _multiplications(layer, before, after)
    parameters = sum(math.prod(shape) for shape in parameter_shapes(layer, before).values())
    moved = (inputs + outputs) * itemsize
    forward = Cost(products + _elementwise(layer, inputs, outputs), moved + parameters * PARAMETER_BYTES)
    input_gradient = Cost(products, moved + parameters * PARAMETER_BYTES)
    if not parameters:
        return LayerCost(layer.name, forward, input_gradient)
    update = parameters * PARAMETER_BYTES * UPDATE_TRANSFERS
    return LayerCost(
        layer.name,
        forward,
        input_gradient,
        Cost(products + outputs, moved + parameters * PARAMETER_BYTES + update),
    )


def _multiplications(layer: Layer, before: tuple[int, ...], after: tuple[int, ...]) -> int:
    """Of one image."""
    match layer:
        case Conv():
            taps = [_taps(extent, outputs, layer) for extent, outputs in zip(before[:2], after[:2], strict=True)]
            return math.prod(taps) * before[2] * after[2]
        case Dense():
            return before[0] * after[0]
        case _:
            return 0


def _taps(extent: int, outputs: int, layer: Conv) -> int:
    """Along one axis, over all outputs: how many elements of the kernel meet the image and not its padding."""
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

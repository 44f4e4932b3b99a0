"""The table that Keras's `summary()` prints, with a column per stage for what trains."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from rich import box
from rich.table import Table

from vision_transfer.models.layers import (
    Activate,
    AveragePool,
    Conv,
    Dense,
    DepthwiseConv,
    Dropout,
    GlobalAveragePool,
    Layer,
    MaxPool,
    Merge,
    PoolLayers,
    SeparableConv,
)
from vision_transfer.models.network import Network
from vision_transfer.models.shapes import parameter_shapes

Mask = Mapping[str, Mapping[str, bool]]


@dataclass(frozen=True)
class SummaryRow:
    """A layer: its kind, the shape of its output for one example, and its parameters that train under each mask."""

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    trainable: tuple[int, ...]


def summary_rows(network: Network, masks: Mapping[str, Mask]) -> list[SummaryRow]:
    """A row per layer, starting with the input; `masks` are by stage."""
    rows = [SummaryRow("input", "Input", network.input_shape, 0, (0,) * len(masks))]
    for place in network.places:
        layer = place.layer
        sizes = {name: math.prod(shape) for name, shape in parameter_shapes(layer, place.before).items()}
        trainable = tuple(
            sum(size for name, size in sizes.items() if mask[layer.name][name]) for mask in masks.values()
        )
        rows.append(SummaryRow(layer.name, _kind(layer), place.output, sum(sizes.values()), trainable))
    return rows


def summary_table(network: Network, masks: Mapping[str, Mask], title: str) -> Table:
    """The rows and the number of parameters as a table, at most 80 columns wide for two stages."""
    rows = summary_rows(network, masks)
    table = Table(title=title, title_justify="left", show_footer=True, box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("Layer", overflow="fold", footer="Total")
    table.add_column("Kind", no_wrap=True)
    table.add_column("Output", no_wrap=True)
    table.add_column("Parameters", justify="right", no_wrap=True, footer=f"{sum(row.parameters for row in rows):,}")
    for stage in masks:
        table.add_column(stage, justify="right", no_wrap=True)
    for row in rows:
        trains = [_trains(row, count) for count in row.trainable]
        frozen = row.parameters and not any(row.trainable)
        shape = "×".join(map(str, row.shape))
        table.add_row(row.name, row.kind, shape, f"{row.parameters:,}", *trains, style="dim" if frozen else "")
    return table


def _kind(layer: Layer) -> str:
    match layer:
        case Conv() | DepthwiseConv() | SeparableConv():
            kind, size = type(layer).__name__.removesuffix("Conv") or "Conv", layer.kernel_size
            strides = "" if isinstance(layer, SeparableConv) or layer.strides == 1 else f"/{layer.strides}"
            activation = f" {layer.activation}" if layer.activation != "linear" or layer.bias else ""
            return f"{kind} {size}×{size}{strides}{activation}"
        case MaxPool():
            strides = "" if layer.strides in (None, layer.size) else f"/{layer.strides}"
            return f"MaxPool {layer.size}×{layer.size}{strides}"
        case AveragePool():
            return f"AveragePool {layer.size}×{layer.size}"
        case Activate():
            return layer.activation
        case Merge():
            return layer.kind
        case Dense():
            return f"Dense {layer.activation}"
        case Dropout():
            return f"Dropout {layer.rate:g}"
        case GlobalAveragePool():
            return "Average"
        case PoolLayers():
            cells = f", {layer.grid}×{layer.grid} cells" if layer.grid > 1 else ""
            return f"Average of {len(layer.layers)} {'layer' if len(layer.layers) == 1 else 'layers'}{cells}"
        case _:
            return type(layer).__name__


def _trains(row: SummaryRow, trainable: int) -> str:
    if not row.parameters:
        return ""
    if trainable in (0, row.parameters):
        return "trains" if trainable else "frozen"
    return f"{trainable:,}"

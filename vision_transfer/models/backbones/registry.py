"""The registry of backbones."""

from functools import cache
from typing import Any, get_args

from vision_transfer.config.own_parts import call_part, with_digest
from vision_transfer.config.references import is_reference
from vision_transfer.errors import UserError, nearest_names
from vision_transfer.models.backbones.backbone import Backbone
from vision_transfer.models.backbones.convnets import convnet
from vision_transfer.models.backbones.densenet import DENSENET121
from vision_transfer.models.backbones.efficientnet_lite import (
    EFFICIENTNET_LITE0,
    EFFICIENTNET_LITE1,
    EFFICIENTNET_LITE2,
)
from vision_transfer.models.backbones.mobilenet_v2 import MOBILENET_V2, MOBILENET_V2_TORCH
from vision_transfer.models.backbones.resnet import RESNET50, RESNET50_TORCH
from vision_transfer.models.backbones.vgg import VGG16_BACKBONE, VGG19_BACKBONE
from vision_transfer.models.backbones.xception import XCEPTION
from vision_transfer.models.layers import Block, GlobalAveragePool, Layer, PoolLayers, Row, layer_names, stage_ends

GLOBAL_POOL_NAME = "global_average_pooling2d"
POOLED_LAYERS_NAME = "pooled_layers"
BACKBONES = {
    "vgg16": VGG16_BACKBONE,
    "vgg19": VGG19_BACKBONE,
    "efficientnet_lite0": EFFICIENTNET_LITE0,
    "efficientnet_lite1": EFFICIENTNET_LITE1,
    "efficientnet_lite2": EFFICIENTNET_LITE2,
    "mobilenet_v2": MOBILENET_V2,
    "mobilenet_v2_torch": MOBILENET_V2_TORCH,
    "xception": XCEPTION,
    "resnet50": RESNET50,
    "resnet50_torch": RESNET50_TORCH,
    "densenet121": DENSENET121,
    "mnist_convnet": convnet(32, 64, 64, pool_last=False),
    "convnet_150": convnet(32, 64, 128, 128, pool_last=True),
    "convnet_180": convnet(32, 64, 128, 256, 256, pool_last=False),
    # No convolutions at all: its head sees the pixels.
    "dense": Backbone(()),
}
_OURS = frozenset(BACKBONES)
RELEASES = tuple(release for backbone in BACKBONES.values() for release in backbone.releases)


def find_backbone(name: str) -> Backbone:
    """The registry's entry, or the user's own backbone that a reference names.

    Raises:
        UserError: an unknown backbone, or one that no later command would find.
    """
    if is_reference(name):
        return _own_backbone(with_digest(name))
    if name in BACKBONES and name not in _OURS:
        raise UserError(
            f"config.model.backbone: {name!r} was added by a config file, which later commands on the run do not have. "
            "Give it as --config.model.backbone=FILE.py:FUNCTION, so that the run keeps its code (docs/own_parts.md)"
        )
    if name not in BACKBONES:
        raise UserError(f"config.model.backbone: unknown {name!r}; known are {', '.join(BACKBONES)}")
    return BACKBONES[name]


@cache
def _own_backbone(reference: str) -> Backbone:
    made = call_part(reference)
    return made if isinstance(made, Backbone) else Backbone(own_rows(reference, made))


def own_rows(reference: str, made: Any) -> tuple[Row, ...]:
    """The rows of a table, from what a user's function returned.

    Raises:
        UserError: it is something else, or two rows have one name.
    """
    rows = tuple(made) if isinstance(made, list | tuple) else None
    if rows is None or not rows or not all(isinstance(row, (*get_args(Layer), Block)) for row in rows):
        raise UserError(
            f"{reference}: returned {type(made).__name__}; expected a list of rows (vision_transfer/models/layers.py)"
        )
    names = [row.name for row in rows]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"{reference}: two rows have the name {twice[0]!r}")
    return rows


def backbone_rows(
    name: str,
    *,
    output: str | None = None,
    batch_norm: bool = False,
    global_average: bool = False,
    pooled_layers: tuple[str, ...] | None = None,
    pooling_grid: int = 1,
) -> tuple[Row, ...]:
    """The table of a backbone, up to the layer `output` if one is named.

    `batch_norm` puts a batch norm between each convolution and its activation (small convnets only). `global_average`
    ends it with global average pooling, as Keras's `pooling="avg"` does; that then counts as a layer of the base.
    `pooled_layers` ends it with the averages of these rows, in the order of the table; if it is empty, of the pools and
    the ends of stages. With a `pooling_grid` above 1 averages are those of the cells of a grid.

    Raises:
        UserError: an unknown backbone or layer, or batch norm for a backbone that has none.
    """
    backbone = find_backbone(name)
    if batch_norm and not backbone.batch_norm_rows:
        with_batch_norm = [name for name, backbone in BACKBONES.items() if backbone.batch_norm_rows]
        raise UserError(
            f"config.model.batch_norm: {name!r} has no batch norm; these backbones do: {', '.join(with_batch_norm)}"
        )
    rows = backbone.batch_norm_rows if batch_norm else backbone.rows
    if output is not None:
        names = [row.name for row in rows]
        if output not in names:
            hint = nearest_names(output, names)
            raise UserError(f"config.model.backbone_output: {name} has no layer {output!r}; {hint}")
        rows = rows[: names.index(output) + 1]
    if pooled_layers is not None:
        return (*rows, PoolLayers(POOLED_LAYERS_NAME, _pooled(name, rows, pooled_layers), pooling_grid))
    if global_average and pooling_grid > 1:
        return (*rows, PoolLayers(POOLED_LAYERS_NAME, (rows[-1].name,), pooling_grid))
    return (*rows, GlobalAveragePool(GLOBAL_POOL_NAME)) if global_average else rows


def _pooled(backbone: str, rows: tuple[Row, ...], wanted: tuple[str, ...]) -> tuple[str, ...]:
    """The names of the rows to pool, in the order of the table."""
    names = layer_names(rows)
    for name in wanted:
        if name not in names:
            raise UserError(
                f"config.model.pooled_layers: {backbone} has no row {name!r} to pool; {nearest_names(name, names)}"
            )
    wanted = wanted or layer_names((*stage_ends(rows), *rows[-1:]))
    return tuple(name for name in names if name in wanted)

"""The masks of an ablation: what its words stand for, and where a mask stands in figures."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.markup import escape
from rich.table import Table

from vision_transfer.errors import UserError
from vision_transfer.features.cacheable import cached_layer
from vision_transfer.freezing import Mask, counts, resolve
from vision_transfer.models.layers import blocks, layer_names
from vision_transfer.models.network import Network, all_parameter_shapes

# Words for many masks at once.
EVERY_CUT, EVERY_BLOCK = "every_cut", "every_block"
HEAD_ONLY, EVERYTHING = "all", "none"


@dataclass(frozen=True)
class MaskFacts:
    """What figures and plans say of a mask.

    Attributes:
        spec: the freeze spec.
        mask: what it resolves to.
        layers: layers of the backbone that train, from the input on.
        depth: how many these are, where they are the last of the backbone, so that the mask is a cut; else None.
        block: the block that trains alone; None where it is not one whole block.
        trainable: parameters that train, with the head's.
    """

    spec: str
    mask: Mask
    layers: tuple[str, ...]
    depth: int | None
    block: str | None
    trainable: int


def expanded(masks: Sequence[str], network: Network) -> list[str]:
    """The freeze specs that a list with the words `every_cut` and `every_block` stands for, each once.

    `every_cut` goes from the head alone, layer by layer, to everything; `every_block` lets one block train at a time.
    """
    layers = trainable_layers(network)
    specs: list[str] = []
    for mask in masks:
        if mask == EVERY_CUT:
            specs += [HEAD_ONLY, *(f"below:{layer}" for layer in reversed(layers[1:])), EVERYTHING]
        elif mask == EVERY_BLOCK:
            specs += [f"only:{','.join(members)}" for _, members in reversed(trainable_blocks(network))]
        else:
            specs.append(mask)
    return list(dict.fromkeys(specs))


def mask_facts(spec: str, network: Network) -> MaskFacts:
    """What a freeze spec says of a network.

    Raises:
        UserError: a spec that does not fit the network.
    """
    try:
        mask = resolve(spec, network)
    except UserError as error:
        raise UserError(f"config.ablation.masks: {error}") from error
    all_layers = trainable_layers(network)
    layers = tuple(layer for layer in all_layers if any(mask[layer].values()))
    whole = all(all(mask[layer].values()) for layer in layers)
    is_cut = whole and layers == all_layers[len(all_layers) - len(layers) :]
    block = next((name for name, members in trainable_blocks(network) if whole and members == layers), None)
    return MaskFacts(
        spec,
        mask,
        layers,
        len(layers) if is_cut else None,
        block,
        counts(all_parameter_shapes(network), mask).trainable,
    )


def masks_table(masks: Sequence[str], network: Network) -> Table:
    """A row for each mask, its words expanded: what trains, and which cached layer training can start from."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("Mask")
    for column in ("Trainable", "Frozen"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("Starts from", no_wrap=True)
    shapes = all_parameter_shapes(network)
    for spec in expanded(masks, network):
        mask = mask_facts(spec, network).mask
        numbers = counts(shapes, mask)
        table.add_row(
            escape(spec),
            f"{numbers.trainable:,} ({numbers.trainable_tensors})",
            f"{numbers.frozen:,} ({numbers.frozen_tensors})",
            cached_layer(network, mask) or "the images",
        )
    return table


def trainable_layers(network: Network) -> tuple[str, ...]:
    """The layers of the backbone that have parameters, from the input on."""
    return tuple(all_parameter_shapes(network, network.backbone))


def trainable_blocks(network: Network) -> list[tuple[str, tuple[str, ...]]]:
    """The blocks of the backbone with their layers that have parameters, from the input on."""
    shapes = all_parameter_shapes(network)
    with_parameters = [layer for layer in network.backbone if layer.name in shapes]
    return [(name, layer_names(members)) for name, members in blocks(with_parameters)]

"""The masks of an ablation: the freeze specs that its words expand to, and the facts that plans and figures show."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from vision_transfer.errors import UserError
from vision_transfer.feature_cache.cacheable import cached_layer
from vision_transfer.freezing import Mask, counts, inference_layers, resolve
from vision_transfer.models.backbones.registry import find_backbone
from vision_transfer.models.layers import layer_names, layers_of, stages
from vision_transfer.models.network import Network, all_parameter_shapes
from vision_transfer.tasks.train.messages import trains_table

# Words that stand for the masks of a network.
EVERY_CUT, EVERY_BLOCK, LAST_STAGE = "every_cut", "every_block", "last_stage"
HEAD_ONLY, EVERYTHING = "all", "none"


@dataclass(frozen=True)
class MaskFacts:
    """A mask in figures and plans.

    Attributes:
        spec: the freeze spec.
        mask: the spec resolved.
        layers: layers of the backbone that train, from the input on.
        depth: their number if they are the last ones of the backbone (the mask is a cut), else None.
        block: the block whose layers these are; None if they are not exactly one whole block.
        trainable: parameters that train, including the head's.
        trains_norms: whether a parameter of a batch norm of the backbone trains, so that its statistics may move.
    """

    spec: str
    mask: Mask
    layers: tuple[str, ...]
    depth: int | None
    block: str | None
    trainable: int
    trains_norms: bool

    @property
    def is_one_block(self) -> bool:
        """Whether the spec names the layers of a single block."""
        return self.spec.startswith("only:") and self.block is not None

    @property
    def cut_name(self) -> str:
        """A cut, by the first layer that trains."""
        if not self.layers:
            return "head only"
        return "everything" if self.spec == EVERYTHING else self.layers[0]

    @property
    def short_name(self) -> str:
        """A cut by the first layer that trains, one block by its name, any other mask by its spec."""
        if self.is_one_block:
            return f"{self.block} alone"
        return self.spec if self.depth is None else self.cut_name


def expanded(masks: Sequence[str], network: Network, backbone: str) -> list[str]:
    """Freeze specs without duplicates, after expanding the words.

    `every_cut` goes from the head alone, layer by layer, to everything; `every_block` trains one block at a time;
    `last_stage` trains the named backbone from the stage on that its entry in the registry says.
    """
    layers = trainable_layers(network)
    specs: list[str] = []
    for mask in masks:
        if mask == EVERY_CUT:
            specs += [HEAD_ONLY, *(f"below:{layer}" for layer in reversed(layers[1:])), EVERYTHING]
        elif mask == EVERY_BLOCK:
            specs += [f"only:{','.join(members)}" for _, members in reversed(trainable_blocks(network))]
        elif mask == LAST_STAGE:
            stage = find_backbone(backbone).fine_tune_from
            specs.append(f"below:{stage}" if stage else EVERYTHING)
        else:
            specs.append(mask)
    return list(dict.fromkeys(specs))


def mask_facts(spec: str, network: Network) -> MaskFacts:
    """The facts of a freeze spec for a network.

    Raises:
        UserError: the spec does not fit the network.
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
    trainable = counts(all_parameter_shapes(network), mask).trainable
    trains_norms = inference_layers(network, mask) != inference_layers(network, mask, pretrained_statistics=True)
    return MaskFacts(spec, mask, layers, len(layers) if is_cut else None, block, trainable, trains_norms)


def masks_table(masks: Sequence[str], network: Network, backbone: str) -> Table:
    """A row for each mask, words expanded: parameters (tensors), and the cached layer that training starts from."""
    found = [mask_facts(spec, network) for spec in expanded(masks, network, backbone)]
    return trains_table(network, ("Mask",), [((one.spec,), one.mask, cached_layer(network, one.mask)) for one in found])


def trainable_layers(network: Network) -> tuple[str, ...]:
    """The layers of the backbone that have parameters, from the input on."""
    shapes = all_parameter_shapes(network)
    return tuple(name for name in layer_names(layers_of(network.backbone)) if name in shapes)


def trainable_blocks(network: Network) -> list[tuple[str, tuple[str, ...]]]:
    """The blocks of the backbone with their layers that have parameters, from the input on."""
    shapes = all_parameter_shapes(network)
    found = [
        (name, tuple(layer.name for layer in members if layer.name in shapes))
        for name, members in stages(network.backbone)
    ]
    return [(name, members) for name, members in found if members]

"""Freeze specs: a spec resolves to a mask, which partitions the parameters into trainable and frozen ones."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vision_transfer.errors import UserError, nearest_names
from vision_transfer.models.layers import NOT_COUNTED_BY_KERAS, BatchNorm, Block, Row, layer_names, layers_of, stage_of
from vision_transfer.models.network import Network, Params, all_parameter_shapes

# layer name -> parameter name -> does it train?
Mask = Mapping[str, Mapping[str, bool]]

# No network has a billion layers, and Python refuses to read thousands of digits.
_MOST_DIGITS = 9
GRAMMAR = """\
  none             nothing is frozen
  all              the whole backbone is frozen; the head trains
  below:NAME       every layer of the backbone before NAME is frozen
  last:N           all but the last N layers of the backbone are frozen, counted as Keras counts `layers[:-N]`:
                   the input, every layer that Keras has, and the global pooling where the backbone ends in one
  only:NAME,...    only these layers of the backbone train
  regex:PATTERN    exactly the parameters whose path LAYER/PARAMETER matches in full train; the head too
NAME is a layer, a block or a stage (`block5`, `conv4`); layers are in Keras's order, in which those of two branches of
a block alternate."""


@dataclass(frozen=True)
class Counts:
    """Numbers of tensors and scalars on either side of a mask."""

    trainable_tensors: int
    trainable: int
    frozen_tensors: int
    frozen: int

    @property
    def total(self) -> int:
        """All scalars."""
        return self.trainable + self.frozen


def resolve(spec: str, network: Network) -> Mask:
    """The mask of a freeze spec: for each parameter whether it trains.

    Args:
        spec: see `GRAMMAR`.
        network: the tables that the spec's names refer to.

    Raises:
        UserError: a spec outside the grammar, an unknown layer, or one that leaves nothing to train.
    """
    trains = _rule(spec, network)
    mask = {
        layer: {parameter: trains(layer, parameter) for parameter in parameters}
        for layer, parameters in all_parameter_shapes(network).items()
    }
    if not any(flag for by_parameter in mask.values() for flag in by_parameter.values()):
        paths = [f"{layer}/{parameter}" for layer, parameters in mask.items() for parameter in parameters]
        raise UserError(
            f"freeze {spec!r} leaves nothing to train; the parameters are {', '.join(paths[:4])}, … {paths[-1]}"
        )
    return mask


def freeze(spec: str | Mapping[str, bool | Mapping[str, bool]], network: Network) -> Mask:
    """The mask of a freeze spec, or of a tree of flags, which are true where something trains.

    Examples:
        >>> freeze({layer: layer == "head_logits" for layer in variables["params"]}, network)

    Args:
        spec: as in docs/freezing.md; or layer → flag, or layer → parameter → flag, for every layer that has parameters.
        network: the tables that it refers to.

    Raises:
        UserError: as `resolve`; or a tree that leaves something out, or nothing to train, or has what the network does
            not have.
    """
    if isinstance(spec, str):
        return resolve(spec, network)
    shapes = all_parameter_shapes(network)
    for layer in spec:
        if layer not in shapes:
            raise UserError(f"freeze: no layer {layer!r} with parameters; {nearest_names(layer, tuple(shapes))}")
    mask: dict[str, dict[str, bool]] = {}
    for layer, parameters in shapes.items():
        flags = spec.get(layer)
        by_parameter = flags if isinstance(flags, Mapping) else dict.fromkeys(parameters, flags)
        if by_parameter.keys() != parameters.keys() or not all(
            isinstance(flag, bool | np.bool_) for flag in by_parameter.values()
        ):
            raise UserError(
                f"freeze: layer {layer!r} has {flags!r}; give True (it trains), False, or one of them for each of "
                f"{', '.join(parameters)}"
            )
        mask[layer] = {parameter: bool(by_parameter[parameter]) for parameter in parameters}
    if not any(any(flags.values()) for flags in mask.values()):
        raise UserError("freeze: the tree leaves nothing to train; give True for at least one layer")
    return mask


def partition(params: Params, mask: Mask) -> tuple[Params, Params]:
    """`(trainable, frozen)`: two trees with the leaves of `params`, not copied; layers without leaves are left out."""
    sides: tuple[Params, Params] = ({}, {})
    for layer, leaves in params.items():
        for parameter, leaf in leaves.items():
            side = sides[0] if mask[layer][parameter] else sides[1]
            side.setdefault(layer, {})[parameter] = leaf
    return sides


def merge(first: Params, second: Params) -> Params:
    """One tree with the leaves of both; a leaf of `second` replaces that of `first`."""
    merged = {layer: dict(leaves) for layer, leaves in first.items()}
    for layer, leaves in second.items():
        merged.setdefault(layer, {}).update(leaves)
    return merged


def cut(network: Network, mask: Mask) -> str:
    """Name of the first row with something trainable; the rows before it are the frozen prefix."""
    for row in network.rows:
        if any(any(mask.get(layer.name, {}).values()) for layer in layers_of([row])):
            return row.name
    raise ValueError("the mask trains nothing")


def split_block(network: Network, mask: Mask) -> tuple[str, tuple[str, ...]] | None:
    """The block at the cut and its frozen layers with parameters, if it has any: they run again in every step."""
    row = network.rows[network.index(cut(network, mask))]
    frozen = tuple(
        layer.name for layer in layers_of([row]) if layer.name in mask and not any(mask[layer.name].values())
    )
    return (row.name, frozen) if isinstance(row, Block) and frozen else None


def inference_layers(network: Network, mask: Mask, *, pretrained_statistics: bool = False) -> frozenset[str]:
    """Batch norms that use their running statistics in training, which then do not move.

    They are those of which no parameter trains and, with `pretrained_statistics`, all of the backbone. Scales and
    biases may train either way. In training mode behind the cut, the statistics of a small batch would replace those
    that the pretrained weights were fitted to.
    """
    of_backbone = layers_of(network.backbone) if pretrained_statistics else ()
    return frozenset(
        layer.name
        for layer in network.layers
        if isinstance(layer, BatchNorm) and (layer in of_backbone or not any(mask[layer.name].values()))
    )


def counts(params: Mapping[str, Mapping[str, Any]], mask: Mask) -> Counts:
    """Numbers of trainable and frozen tensors and scalars of `params`: arrays, or their shapes."""
    sizes: dict[bool, list[int]] = {True: [], False: []}
    for layer, leaves in params.items():
        for parameter, leaf in leaves.items():
            sizes[mask[layer][parameter]].append(math.prod(getattr(leaf, "shape", leaf)))
    return Counts(len(sizes[True]), sum(sizes[True]), len(sizes[False]), sum(sizes[False]))


def _rule(spec: str, network: Network) -> Callable[[str, str], bool]:
    """Whether the parameter `(layer, parameter)` trains under `spec`."""
    kind, _, argument = spec.partition(":")
    if kind == "regex" and argument:
        pattern = _compile(spec, argument)
        return lambda layer, parameter: pattern.fullmatch(f"{layer}/{parameter}") is not None
    backbone, head = layer_names(layers_of(network.backbone)), layer_names(layers_of(network.head))
    match kind:
        case "none" if not argument:
            trainable = set(backbone)
        case "all" if not argument:
            trainable = set[str]()
        case "below" if argument:
            trainable = set(backbone[backbone.index(_named(spec, argument, network)[0]) :])
        case "last" if argument:
            trainable = _last(spec, argument, network)
        case "only" if argument:
            trainable = {layer for name in argument.split(",") for layer in _named(spec, name.strip(), network)}
        case _:
            raise UserError(f"freeze: cannot read {spec!r}; allowed are\n{GRAMMAR}")
    trainable |= set(head)
    return lambda layer, parameter: layer in trainable


def _last(spec: str, argument: str, network: Network) -> set[str]:
    counted = [layer.name for layer in layers_of(network.backbone) if not isinstance(layer, NOT_COUNTED_BY_KERAS)]
    most = len(counted) + 1  # the input is a layer too
    if not argument.isdecimal() or len(argument) > _MOST_DIGITS or int(argument) > most:
        raise UserError(f"freeze {spec!r}: N is a whole number from 0 to {most}, the number of the backbone's layers")
    return set(counted[max(0, len(counted) - int(argument)) :])


def _named(spec: str, name: str, network: Network) -> tuple[str, ...]:
    """The layers that a name stands for, in Keras's order: itself, or those of a block or stage of the backbone."""
    layers = layer_names(layers_of(network.backbone))
    if name in layers:
        return (name,)
    rows: list[Row] = [row for row in network.backbone if name in (row.name, stage_of(row))]
    if rows:
        return layer_names(layers_of(rows))
    known = (*layers, *layer_names(network.backbone), *map(stage_of, network.backbone))
    hint = (
        "it belongs to the head, which always trains"
        if name in layer_names(network.head)
        else nearest_names(name, tuple(dict.fromkeys(known)))
    )
    raise UserError(f"freeze {spec!r}: the backbone has no layer {name!r}; {hint}")


def _compile(spec: str, pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise UserError(f"freeze {spec!r}: not a regular expression: {error}") from error

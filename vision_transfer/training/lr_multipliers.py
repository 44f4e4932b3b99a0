"""Factors of the learning rate of each parameter: patterns, and rates that fall towards the input.

Lower layers of a pretrained network are more general and are best changed less (Howard and Ruder 2018,
arXiv:1801.06146, "discriminative fine-tuning"; Bao et al. 2021, arXiv:2106.08254, "layer-wise learning rate decay").
"""

import math
import re
from collections.abc import Mapping, Sequence

import numpy as np

from vision_transfer.errors import UserError
from vision_transfer.models.layers import layers_of, stages
from vision_transfer.models.network import Network, Params, all_parameter_shapes

# layer name -> parameter name -> factor
Multipliers = Mapping[str, Mapping[str, float]]

LAYER_DECAY, BLOCK_DECAY = "layer_decay", "block_decay"
GRAMMAR = f"""\
  PATTERN=FACTOR     parameters whose path LAYER/PARAMETER the regular expression matches in full; the first counts
  {LAYER_DECAY}=FACTOR the head 1, the backbone's last layer FACTOR, the one before it FACTOR times FACTOR, …
  {BLOCK_DECAY}=FACTOR the same by blocks: VGG's block5, block4, …"""


def resolve_multipliers(rules: Sequence[str], network: Network) -> Multipliers:
    """The factor of each parameter: that of the first pattern that matches (else 1), times those of the decays.

    Raises:
        UserError: a rule outside of `GRAMMAR`, or a pattern that matches nothing.
    """
    shapes = all_parameter_shapes(network)
    factors = {layer: dict.fromkeys(parameters, 1.0) for layer, parameters in shapes.items()}
    matched: set[tuple[str, str]] = set()
    for rule in rules:
        name, factor = _read(rule)
        if name in (LAYER_DECAY, BLOCK_DECAY):
            powers = _heights(network, by_block=name == BLOCK_DECAY)
            for layer, parameters in factors.items():
                factors[layer] = {parameter: value * factor ** powers[layer] for parameter, value in parameters.items()}
            continue
        pattern, found = _compile(rule, name), False
        for layer, parameters in factors.items():
            for parameter in parameters:
                if pattern.fullmatch(f"{layer}/{parameter}") is None:
                    continue
                found = True
                if (layer, parameter) not in matched:
                    matched.add((layer, parameter))
                    parameters[parameter] *= factor
        if not found:
            paths = [f"{layer}/{parameter}" for layer, parameters in shapes.items() for parameter in parameters]
            raise UserError(
                f"lr_multipliers: {rule!r} matches no parameter; they are {', '.join(paths[:4])}, … {paths[-1]}"
            )
    return factors


def trainable_multipliers(multipliers: Multipliers, trainable: Params) -> Params:
    """A float32 scalar for each trainable leaf, also where all are 1: stages with and without them are one program."""
    return {
        layer: {name: np.float32(multipliers.get(layer, {}).get(name, 1)) for name in leaves}
        for layer, leaves in trainable.items()
    }


def _heights(network: Network, *, by_block: bool) -> dict[str, int]:
    """The distance of each layer with parameters from the head, in layers or stages; 0 in the head."""
    with_parameters = all_parameter_shapes(network)
    by_stage = [members for _, members in stages(network.backbone)]
    groups = by_stage if by_block else [(layer,) for layer in layers_of(network.backbone)]
    groups = [group for group in groups if any(layer.name in with_parameters for layer in group)]
    heights = {layer.name: len(groups) - place for place, group in enumerate(groups) for layer in group}
    return {name: heights.get(name, 0) for name in with_parameters}


def _read(rule: str) -> tuple[str, float]:
    name, equals, text = rule.rpartition("=")
    try:
        factor = float(text)
    except ValueError:
        factor = math.nan
    if not equals or not name or not math.isfinite(factor) or factor < 0:
        raise UserError(f"lr_multipliers: cannot read {rule!r}; FACTOR is a number from 0, and allowed are\n{GRAMMAR}")
    return name, factor


def _compile(rule: str, pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise UserError(f"lr_multipliers: {rule!r}: not a regular expression: {error}") from error

"""The rule for which rows' outputs are cached.

A row can be cached where all rows up to it are frozen and it is a pool or the last of a stage of the backbone. Inside a
stage of VGG a map has two to four times as many values as at its end, so the rows between the last frozen stage and the
cut are computed in every step rather than cached. An end whose output has twice as many values as that of an earlier
one, or more, is left out too. Global average pooling counts as a stage: its outputs are the smallest.
"""

import math
from collections.abc import Iterator

from vision_transfer.freezing import Mask, cut
from vision_transfer.models.layers import GlobalAveragePool, MaxPool, Row, stage_of
from vision_transfer.models.network import Network

# A map that is larger by this factor costs more to store and read than the rows after the earlier one cost to compute.
TOO_LARGE = 2


def cached_layer(network: Network, mask: Mask) -> str | None:
    """The row whose output is cached under a mask: the last one of the frozen prefix that can be, or None."""
    return next(_deepest_first(network, network.index(cut(network, mask))), None)


def cacheable_layers(network: Network, deepest: str) -> tuple[str, ...]:
    """The rows whose outputs can be cached if that of `deepest` can, from `deepest` back to the first."""
    return tuple(_deepest_first(network, network.index(deepest) + 1))


def _deepest_first(network: Network, stop: int) -> Iterator[str]:
    """Cacheable rows among the first `stop` of the network."""
    smallest = math.inf
    found: list[str] = []
    for row, following in zip(network.rows[:stop], (*network.rows[1:], None), strict=False):
        size = math.prod(network.shape_after(row.name))
        if _ends_stage(row, following) and size < TOO_LARGE * smallest:
            found.append(row.name)
            smallest = min(smallest, size)
    return reversed(found)


def _ends_stage(row: Row, following: Row | None) -> bool:
    if isinstance(row, MaxPool | GlobalAveragePool):
        return True
    named = bool(getattr(row, "stage", ""))
    return named and (following is None or stage_of(row) != stage_of(following))

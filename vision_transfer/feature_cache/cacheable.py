"""The rule for which rows' outputs are cached.

A row can be cached where all rows up to it are frozen and it is a pool or the last of a stage of the backbone. Inside a
stage of VGG a map has two to four times as many values as at its end, so the rows between the last frozen stage and the
cut are computed in every step rather than cached. An end whose output has twice as many values as that of an earlier
one, or more, is left out too. Global average pooling counts as a stage: its outputs are the smallest. Where the end of
the backbone pools several layers, steps cannot start between the first of them and that end.
"""

import math
from collections.abc import Iterator

from vision_transfer.freezing import Mask, cut
from vision_transfer.models.layers import stage_ends
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
    ends = stage_ends(network.rows)
    for position, row in enumerate(network.rows[:stop], start=1):
        size = math.prod(network.shape_after(row.name))
        if row in ends and size < TOO_LARGE * smallest and network.start_before(position) == position:
            found.append(row.name)
            smallest = min(smallest, size)
    return reversed(found)

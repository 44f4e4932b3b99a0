"""The rule for which layers' outputs are cached.

A layer can be cached where all layers up to it are frozen and it is a pool. In VGG the map inside a block has two to
four times as many values as the pool after it, so the convolutions between the last pool of the frozen prefix and the
cut are computed in every step rather than cached. Global average pooling counts too: its outputs are the smallest.
"""

from collections.abc import Iterator

from vision_transfer.freezing import Mask, cut
from vision_transfer.models.layers import GlobalAveragePool, Layer, MaxPool
from vision_transfer.models.network import Network


def cached_layer(network: Network, mask: Mask) -> str | None:
    """The layer whose output is cached under a mask: the last pool of the frozen prefix, or None."""
    return next(_deepest_first(network.layers[: network.index(cut(network, mask))]), None)


def cacheable_layers(network: Network, deepest: str) -> tuple[str, ...]:
    """The layers whose outputs can be cached if that of `deepest` can, from `deepest` back to the first."""
    return tuple(_deepest_first(network.between(stop=deepest)))


def _deepest_first(prefix: tuple[Layer, ...]) -> Iterator[str]:
    return (layer.name for layer in reversed(prefix) if isinstance(layer, MaxPool | GlobalAveragePool))

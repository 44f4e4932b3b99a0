"""Which layers of a network give maps that can be looked at."""

from vision_transfer.errors import UserError
from vision_transfer.models.layers import BatchNorm, Conv, Dropout
from vision_transfer.models.network import Network

# Rank of one example's output that is a map: height, width, channels.
MAP_RANK = 3


def map_layers(network: Network) -> tuple[str, ...]:
    """Names of the layers whose output has height, width and channels, in order; dropout changes nothing and is out."""
    rows = zip(network.layers, network.shapes[1:], strict=True)
    return tuple(layer.name for layer, shape in rows if len(shape) == MAP_RANK and not isinstance(layer, Dropout))


def require_map(network: Network, layer: str) -> tuple[int, int, int]:
    """`(height, width, channels)` of a layer's output.

    Raises:
        UserError: there is no such layer, or its output is a vector.
    """
    shape = network.shape_after(layer)
    if len(shape) != MAP_RANK:
        maps = ", ".join(map_layers(network)) or "none of this network's layers"
        raise UserError(f"layer {layer!r} gives a vector of {shape[0]} values, not a map; maps come from {maps}")
    height, width, channels = shape
    return height, width, channels


def last_map(network: Network) -> str:
    """The last convolution, or the batch norm behind it: where Grad-CAM looks unless told otherwise.

    Raises:
        UserError: the network has no convolution.
    """
    maps = set(map_layers(network))
    names = [layer.name for layer in network.layers if isinstance(layer, Conv | BatchNorm) and layer.name in maps]
    if not names:
        raise UserError("this network has no convolution, so there are no maps to look at")
    return names[-1]

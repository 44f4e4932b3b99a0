"""Outputs of a network's layers, channel by channel, and which layers give maps."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Real

from vision_transfer.errors import UserError
from vision_transfer.models.layers import CONVOLUTIONS, Activate, BatchNorm, Dropout, Merge
from vision_transfer.models.network import Network, Variables, apply_watching

# Rank of one example's output that is a map: height, width, channels.
MAP_RANK = 3
# A map with a smaller height or width hardly shows places: small images leave 1×1 after the last pooling layer.
SMALLEST_MAP = 3
# A channel is shown from two standard deviations below its mean to two above (Chollet 2017, "Deep Learning with
# Python", section 5.4.1, scales by 64 around 128).
DEVIATIONS_SHOWN = 2.0


def map_layers(network: Network) -> tuple[str, ...]:
    """Names of the layers whose output has height, width and channels, in order; dropout layers are left out."""
    return tuple(
        place.layer.name
        for place in network.places
        if len(place.output) == MAP_RANK and not isinstance(place.layer, Dropout)
    )


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
    """The default layer for Grad-CAM: the last convolution, with the norm, merge and activation after it.

    It is the last of these with a map of at least `SMALLEST_MAP` a side; the last one where none has.

    Raises:
        UserError: the network has no convolution.
    """
    kinds = (*CONVOLUTIONS, BatchNorm, Activate, Merge)
    shapes = {
        place.layer.name: place.output
        for place in network.places
        if isinstance(place.layer, kinds) and len(place.output) == MAP_RANK
    }
    if not any(isinstance(layer, CONVOLUTIONS) for layer in network.layers):
        raise UserError(
            "this network has no convolution, so there are no maps to look at; --mode=explain --show=smooth_grad shows "
            "which pixels count, and needs none"
        )
    names = list(shapes)
    return next((name for name in reversed(names) if min(shapes[name][:2]) >= SMALLEST_MAP), names[-1])


def activations(
    network: Network,
    variables: Variables,
    images: Real[np.ndarray, "batch height width channels"],
    layers: Sequence[str],
) -> dict[str, Float32[np.ndarray, "batch map_height map_width map_channels"]]:
    """Outputs of layers that give maps, by layer in network order; each layer is computed once.

    Images have values 0–255 and the network's input size.

    Raises:
        UserError: there is no such layer, or its output is a vector.
    """
    for layer in layers:
        require_map(network, layer)
    order = [name for place in network.places for name in (place.layer.name, place.entry)]
    wanted = tuple(sorted(set(layers), key=order.index))
    outputs = _outputs(network, wanted, variables, jnp.asarray(images))
    return {layer: np.asarray(outputs[layer], np.float32) for layer in wanted}


@partial(jax.jit, static_argnames=("network", "layers"))
def _outputs(
    network: Network, layers: tuple[str, ...], variables: Variables, images: Real[Array, "batch ..."]
) -> dict[str, Float[Array, "batch ..."]]:
    return apply_watching(network, variables, images, layers)[1]


def standardised(
    maps: Float[np.ndarray, "map_height map_width channels"],
) -> Float32[np.ndarray, "map_height map_width channels"]:
    """Scales each channel separately to 0–1 with its mean at 0.5; a constant channel becomes NaN."""
    wide = maps.astype(np.float64)
    deviation = wide.std(axis=(0, 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        scaled = (wide - wide.mean(axis=(0, 1))) / deviation
    scaled = np.clip(0.5 + scaled / (2 * DEVIATIONS_SHOWN), 0, 1)
    return np.where(deviation > 0, scaled, np.nan).astype(np.float32)

"""What each channel of a layer answers to an image."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Real

from vision_transfer.models.network import Network, Variables, outputs_at
from vision_transfer.tasks.explain.maps import require_map

# A channel is shown from two standard deviations below its mean to two above (Chollet 2017, "Deep Learning with
# Python", section 5.4.1, scales by 64 around 128).
DEVIATIONS_SHOWN = 2.0


def activations(
    network: Network,
    variables: Variables,
    images: Real[np.ndarray, "batch height width channels"],
    layers: Sequence[str],
) -> dict[str, Float32[np.ndarray, "batch map_height map_width map_channels"]]:
    """Outputs of some layers, each layer run once.

    Args:
        network: the tables.
        variables: `params` and, if there are batch norms, `batch_stats`.
        images: values 0–255, as the network takes them.
        layers: names of layers whose output is a map, in any order.

    Returns:
        By layer, in network order.

    Raises:
        UserError: there is no such layer, or its output is no map.
    """
    for layer in layers:
        require_map(network, layer)
    wanted = tuple(sorted(set(layers), key=network.index))
    found = _outputs(network, wanted, variables, jnp.asarray(images))
    return {layer: np.asarray(values, np.float32) for layer, values in zip(wanted, found, strict=True)}


@partial(jax.jit, static_argnames=("network", "layers"))
def _outputs(
    network: Network, layers: tuple[str, ...], variables: Variables, images: Real[Array, "batch ..."]
) -> list[Float[Array, "batch ..."]]:
    return list(outputs_at(network, variables, images, layers))


def standardised(
    maps: Float[np.ndarray, "map_height map_width channels"],
) -> Float32[np.ndarray, "map_height map_width channels"]:
    """Each channel on a scale of its own, 0–1, its mean at 0.5; NaN where a channel says the same everywhere."""
    wide = maps.astype(np.float64)
    deviation = wide.std(axis=(0, 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        scaled = (wide - wide.mean(axis=(0, 1))) / deviation
    scaled = np.clip(0.5 + scaled / (2 * DEVIATIONS_SHOWN), 0, 1)
    return np.where(deviation > 0, scaled, np.nan).astype(np.float32)

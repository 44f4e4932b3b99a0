"""Grad-CAM: where in an image the evidence for a class lies (Selvaraju et al. 2017, arXiv:1610.02391)."""

from functools import partial
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, Real

from vision_transfer.models.network import Network, Variables, apply
from vision_transfer.tasks.explain.activations import require_map


def class_scores(logits: Float[Array, "batch outputs"], targets: Int[Array, "batch"]) -> Float[Array, "batch"]:
    """The logit of each example's target class; with one sigmoid output, its logit for class 1 and minus it for 0."""
    if logits.shape[-1] == 1:
        return jnp.where(targets == 1, logits[:, 0], -logits[:, 0])
    return jnp.take_along_axis(logits, targets[:, None], axis=1)[:, 0]


def grad_cam(
    network: Network,
    variables: Variables,
    images: Real[np.ndarray, "batch height width channels"],
    layer: str,
    targets: Int[np.ndarray, "batch"],
) -> Float32[np.ndarray, "batch map_height map_width"]:
    """Heat maps: the sum of the layer's channels, each weighted by its mean gradient, with negative values set to 0.

    Args:
        network: the tables, with a head that ends in logits.
        variables: `params` and, if there are batch norms, `batch_stats`.
        images: values 0–255, at the network's input size.
        layer: a layer whose output is a map, usually the last convolution.
        targets: class numbers; the gradient is that of `class_scores`.

    Returns:
        Values 0–1: each map is divided by its largest value, or is all 0 where nothing supports the class.

    Raises:
        UserError: there is no such layer, or its output is a vector.
    """
    require_map(network, layer)
    return np.asarray(_heat(network, layer, variables, jnp.asarray(images), jnp.asarray(targets)))


@partial(jax.jit, static_argnames=("network", "layer"))
def _heat(
    network: Network,
    layer: str,
    variables: Variables,
    images: Real[Array, "batch height width channels"],
    targets: Int[Array, "batch"],
) -> Float[Array, "batch map_height map_width"]:
    maps = apply(network, variables, images, stop=layer)
    start = network.after(layer)

    def total_score(maps: Array) -> Array:
        # examples do not mix in inference, so the gradient of the sum holds each example's own
        return jnp.sum(class_scores(apply(network, variables, maps, start=start), targets))

    gradient = cast(Array, jax.grad(total_score)(maps)).astype(jnp.float32)
    weights = jnp.mean(gradient, axis=(1, 2), keepdims=True)
    heat = jax.nn.relu(jnp.sum(weights * maps.astype(jnp.float32), axis=-1))
    largest = jnp.max(heat, axis=(1, 2), keepdims=True)
    return jnp.where(largest > 0, heat / jnp.where(largest > 0, largest, 1), 0)

"""Heat maps of the evidence for a class in an image: Grad-CAM of a layer's maps, SmoothGrad of the pixels."""

from functools import partial
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Float32, Int, Key, Real

from vision_transfer.models.network import Network, Variables, apply, apply_watching
from vision_transfer.models.preprocessing import MAX_PIXEL
from vision_transfer.tasks.explain.activations import require_map

# SmoothGrad's paper recommends noise of 10 to 20 % of the range and finds that more than 50 samples add little.
NOISE, SAMPLES = 0.15, 25
# As in that paper: without a cap, a few extreme pixels would leave the rest black.
CAP_PERCENTILE = 99.0


def grad_cam(
    network: Network,
    variables: Variables,
    images: Real[np.ndarray, "batch height width channels"],
    layer: str,
    targets: Int[np.ndarray, "batch"],
) -> Float32[np.ndarray, "batch map_height map_width"]:
    """Heat maps: the sum of the layer's channels, each weighted by its mean gradient, with negative values set to 0.

    Selvaraju et al. 2017, arXiv:1610.02391. The gradient is that of the target's logit; `images` have values 0–255 and
    the network's input size; `layer` is usually `activations.last_map`.

    Returns:
        Values 0–1: each map is divided by its largest value, or is all 0 where nothing supports the class.

    Raises:
        UserError: there is no such layer, or its output is a vector.
    """
    require_map(network, layer)
    return np.asarray(_heat(network, layer, variables, jnp.asarray(images), jnp.asarray(targets)))


def smooth_grad(
    network: Network,
    variables: Variables,
    images: Real[np.ndarray, "batch height width channels"],
    targets: Int[np.ndarray, "batch"],
    key: Key[Array, ""],
    *,
    samples: int = SAMPLES,
    noise: float = NOISE,
) -> Float32[np.ndarray, "batch height width"]:
    """Absolute mean gradient of the target's logit over noisy copies of each image; the largest over the channels.

    Smilkov et al. 2017, arXiv:1706.03825. `images` as in `grad_cam`; the noise's standard deviation is a share of the
    range 0–255. One sample without noise gives the plain gradient (Simonyan et al. 2014).

    Returns:
        Values 0–1: each map is divided by its 99th percentile and capped at 1.
    """
    gradients = _mean_gradient(network, variables, jnp.asarray(images), jnp.asarray(targets), key, samples, noise)
    saliency = np.max(np.abs(np.asarray(gradients, np.float32)), axis=-1)
    cap = np.percentile(saliency, CAP_PERCENTILE, axis=(1, 2), keepdims=True)
    cap = np.where(cap > 0, cap, np.maximum(np.max(saliency, axis=(1, 2), keepdims=True), np.finfo(np.float32).tiny))
    return np.minimum(saliency / cap, 1).astype(np.float32)


@partial(jax.jit, static_argnames=("network", "layer"))
def _heat(
    network: Network,
    layer: str,
    variables: Variables,
    images: Real[Array, "batch height width channels"],
    targets: Int[Array, "batch"],
) -> Float[Array, "batch map_height map_width"]:
    def score(perturbation: Array) -> tuple[Array, Array]:
        logits, outputs = apply_watching(network, variables, images, (layer,), {layer: perturbation})
        return _total_score(logits, targets), outputs[layer]

    shape = (len(images), *network.shape_after(layer))
    gradient, maps = jax.grad(score, has_aux=True)(jnp.zeros(shape, network.numerics.dtype))
    gradient = gradient.astype(jnp.float32)
    weights = jnp.mean(gradient, axis=(1, 2), keepdims=True)
    heat = jax.nn.relu(jnp.sum(weights * maps.astype(jnp.float32), axis=-1))
    largest = jnp.max(heat, axis=(1, 2), keepdims=True)
    return jnp.where(largest > 0, heat / jnp.where(largest > 0, largest, 1), 0)


@partial(jax.jit, static_argnames=("network", "samples"))
def _mean_gradient(
    network: Network,
    variables: Variables,
    images: Real[Array, "batch height width channels"],
    targets: Int[Array, "batch"],
    key: Key[Array, ""],
    samples: int,
    noise: Float[Array, ""],
) -> Float[Array, "batch height width channels"]:
    pixels = images.astype(jnp.float32)

    def add_sample(total: Array, sample: Array) -> tuple[Array, None]:
        noisy = pixels + noise * MAX_PIXEL * jax.random.normal(jax.random.fold_in(key, sample), pixels.shape)
        gradient = jax.grad(lambda pixels: _total_score(apply(network, variables, pixels), targets))(noisy)
        return total + cast(Array, gradient), None

    total, _ = lax.scan(add_sample, jnp.zeros_like(pixels), jnp.arange(samples))
    return total / samples


def _total_score(logits: Float[Array, "batch outputs"], targets: Int[Array, "batch"]) -> Float[Array, ""]:
    """The sum of the target logits. Examples do not mix in inference, so its gradient holds each example's own.

    One sigmoid output is the logit for class 1, and minus it the one for class 0.
    """
    if logits.shape[-1] == 1:
        return jnp.sum(jnp.where(targets == 1, logits[:, 0], -logits[:, 0]))
    return jnp.sum(jnp.take_along_axis(logits, targets[:, None], axis=1))

"""SmoothGrad: the pixels that a class's logit depends on (Smilkov et al. 2017, arXiv:1706.03825)."""

from functools import partial
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Float32, Int, Key, Real

from vision_transfer.models.network import Network, Variables, apply
from vision_transfer.models.preprocessing import MAX_PIXEL
from vision_transfer.tasks.explain.grad_cam import class_scores

# The paper recommends noise of 10 to 20 % of the range and finds that more than 50 samples add little.
NOISE, SAMPLES = 0.15, 25
# As in the paper: without a cap, a few extreme pixels would leave the rest black.
CAP_PERCENTILE = 99.0


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
    """Absolute mean gradient of the class's logit over noisy copies of each image; the largest over the channels.

    Args:
        network: the tables, with a head that ends in logits.
        variables: `params` and, if there are batch norms, `batch_stats`.
        images: values 0–255, at the network's input size.
        targets: class numbers; the gradient is that of `class_scores`.
        key: for the noise.
        samples: noisy copies of each image; 1 with `noise` 0 gives the plain gradient (Simonyan et al. 2014).
        noise: standard deviation as a share of the range 0–255.

    Returns:
        Values 0–1: each map is divided by its 99th percentile and capped at 1.
    """
    gradients = _mean_gradient(network, variables, jnp.asarray(images), jnp.asarray(targets), key, samples, noise)
    saliency = np.max(np.abs(np.asarray(gradients, np.float32)), axis=-1)
    cap = np.percentile(saliency, CAP_PERCENTILE, axis=(1, 2), keepdims=True)
    cap = np.where(cap > 0, cap, np.maximum(np.max(saliency, axis=(1, 2), keepdims=True), np.finfo(np.float32).tiny))
    return np.minimum(saliency / cap, 1).astype(np.float32)


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

    def total_score(pixels: Array) -> Array:
        return jnp.sum(class_scores(apply(network, variables, pixels), targets))

    def add_sample(total: Array, sample: Array) -> tuple[Array, None]:
        noisy = pixels + noise * MAX_PIXEL * jax.random.normal(jax.random.fold_in(key, sample), pixels.shape)
        return total + cast(Array, jax.grad(total_score)(noisy)), None

    total, _ = lax.scan(add_sample, jnp.zeros_like(pixels), jnp.arange(samples))
    return total / samples

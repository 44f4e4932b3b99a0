"""Losses and hits per example, from logits."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from vision_transfer.models.network import Params


def example_losses(
    logits: Float[Array, "batch outputs"], labels: Int[Array, "batch"], label_smoothing: float = 0.0
) -> Float[Array, "batch"]:
    """Cross-entropy of each example in nats: of a sigmoid where there is one output, of a softmax otherwise.

    `label_smoothing` spreads that share of each label evenly over the classes (Szegedy et al. 2016, arXiv:1512.00567).
    """
    if logits.shape[-1] == 1:
        targets = labels.astype(logits.dtype) * (1 - label_smoothing) + label_smoothing / 2
        return optax.sigmoid_binary_cross_entropy(logits[:, 0], targets)
    if not label_smoothing:
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), label_smoothing)
    return optax.softmax_cross_entropy(logits, targets)


def hits(logits: Float[Array, "batch outputs"], labels: Int[Array, "batch"]) -> Bool[Array, "batch"]:
    """Whether the likeliest class is the label; a sigmoid says class 1 above one half."""
    predicted = logits[:, 0] > 0 if logits.shape[-1] == 1 else jnp.argmax(logits, axis=-1)
    return predicted == labels.astype(predicted.dtype)


def kernel_penalty(trainable: Params, l1: float, l2: float) -> Float[Array, ""]:
    """Keras's L1L2 over the trainable kernels: l1·Σ|w| + l2·Σw². Biases and batch norms are left alone."""
    kernels = [leaves["kernel"] for leaves in trainable.values() if "kernel" in leaves]
    total = jnp.zeros(())
    for kernel in kernels:
        total += l1 * jnp.sum(jnp.abs(kernel)) + l2 * jnp.sum(jax.lax.square(kernel))
    return total

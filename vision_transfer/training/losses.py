"""Losses and hits per example, from logits; penalties on kernels; weights of classes."""

# JAX, Optax and Orbax type their functions on trees only in part.
# pyright: reportUnknownMemberType=false, reportUnknownLambdaType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingTypeStubs=false

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Int32

from vision_transfer.models.network import Params, is_kernel

CROSS_ENTROPY = "cross_entropy"


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
    """Whether the likeliest class is the label; for a sigmoid that is class 1 above one half."""
    predicted = logits[:, 0] > 0 if logits.shape[-1] == 1 else jnp.argmax(logits, axis=-1)
    return predicted == labels.astype(predicted.dtype)


def kernel_penalty(trainable: Params, l1: float, l2: float) -> Float[Array, ""]:
    """Keras's L1L2 over the trainable kernels: l1·Σ|w| + l2·Σw². Biases and batch norms are left alone."""
    kernels = [leaf for leaves in trainable.values() for name, leaf in leaves.items() if is_kernel(name)]
    total = jnp.zeros(())
    for kernel in kernels:
        total += l1 * jnp.sum(jnp.abs(kernel)) + l2 * jnp.sum(jax.lax.square(kernel))
    return total


def class_weights(labels: Int32[np.ndarray, "examples"], classes: int) -> tuple[float, ...]:
    """Weights of the losses of each class: `examples / (classes * examples of the class)`.

    These are scikit-learn's "balanced" weights (King and Zeng 2001, "Logistic regression in rare events data"); their
    mean over all training examples is 1. A class without examples has the weight 0 and does not count as a class.
    """
    counts = np.bincount(labels, minlength=classes)
    present = np.count_nonzero(counts)
    return tuple(len(labels) / (present * int(count)) if count else 0.0 for count in counts)

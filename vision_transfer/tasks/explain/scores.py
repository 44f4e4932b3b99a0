"""What a head says of a class, as one number that can be differentiated."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def class_scores(logits: Float[Array, "batch outputs"], targets: Int[Array, "batch"]) -> Float[Array, "batch"]:
    """The logit of each example's target class; with one sigmoid, the logit for class 1 and its negative for class 0.

    Args:
        logits: of a head with a softmax, or with one sigmoid (`outputs` is 1).
        targets: class numbers.
    """
    if logits.shape[-1] == 1:
        return jnp.where(targets == 1, logits[:, 0], -logits[:, 0])
    return jnp.take_along_axis(logits, targets[:, None], axis=1)[:, 0]

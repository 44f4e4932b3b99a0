"""Keras's optimizers as Optax transformations that take the learning rate with each step, and rates per step.

The rate is an argument of the step, so that no value of it compiles a second program. As in Keras, momentum
accumulates updates already scaled by the learning rate, so lowering the rate does not rescale past updates.
"""

# JAX, Optax and Orbax type their functions on trees only in part.
# pyright: reportUnknownMemberType=false, reportUnknownLambdaType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingTypeStubs=false

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from vision_transfer.config.own_parts import call_part
from vision_transfer.config.task_schema import OptimizerName
from vision_transfer.models.network import is_kernel

# keras/src/optimizers/{rmsprop,adam}.py
KERAS_EPSILON = 1e-7
RMSPROP_DECAY = 0.9
ADAM_DECAYS = (0.9, 0.999)


@dataclass(frozen=True)
class OptimizerSpec:
    """An optimizer without its learning rate; `vision_transfer.config.schema.OptimizerConfig` has the meanings."""

    name: OptimizerName | str
    momentum: float = 0.0
    weight_decay: float = 0.0
    clip_norm: float | None = None


def descent(spec: OptimizerSpec) -> optax.GradientTransformationExtraArgs:
    """The transformation of gradients into the change that is subtracted from the parameters.

    Its `update` takes the learning rate as `rate`.

    `rate` is a scalar, or a tree with one for each parameter. A user's own transformation is one of Optax's with the
    learning rate 1, whose updates are multiplied by the rate of each step.

    With dₜ the direction and λ the decay of kernels: mₜ = momentum · mₜ₋₁ + rateₜ · dₜ, subtracted is
    mₜ + rateₜ · λ · w (keras/src/optimizers/{sgd,rmsprop}.py, and `_apply_weight_decay` of base_optimizer.py).
    """
    parts = [] if spec.clip_norm is None else [optax.clip_by_global_norm(spec.clip_norm)]
    match spec.name:
        case "rmsprop":
            parts.append(optax.scale_by_rms(decay=RMSPROP_DECAY, eps=KERAS_EPSILON, eps_in_sqrt=True))
        case "adam":
            parts.append(scale_by_keras_adam())
        case "sgd":
            pass
        case own:
            # Optax's updates are added; ours are subtracted, times the step's rate.
            parts += [optax.with_extra_args_support(call_part(own)), optax.scale(-1.0)]
    parts.append(_scale_by_rate())
    if spec.momentum and spec.name in ("rmsprop", "sgd"):
        parts.append(optax.trace(decay=spec.momentum))
    if spec.weight_decay:
        parts.append(_add_decayed_kernels(spec.weight_decay))
    return optax.with_extra_args_support(optax.chain(*parts))


class KerasAdamState(NamedTuple):
    """Number of steps taken and the running first and second moments of the gradient."""

    steps: Int[Array, ""]
    first: optax.Updates
    second: optax.Updates


def scale_by_keras_adam() -> optax.GradientTransformation:
    """Adam with Keras's "epsilon hat", which is added before the bias correction, not after it as in Optax.

    m ← β₁m + (1-β₁)g,  v ← β₂v + (1-β₂)g²,  direction = √(1-β₂ᵗ)/(1-β₁ᵗ) · m / (√v + ε)
    (Kingma and Ba 2015, end of section 2; keras/src/optimizers/adam.py). The two differ only where gradients are
    under about 1e-6.
    """
    first_decay, second_decay = ADAM_DECAYS

    def init(params: optax.Params) -> KerasAdamState:
        # Each moment has buffers of its own, since the state is donated and no buffer can be donated twice.
        first, second = (jax.tree.map(jnp.zeros_like, params) for _ in range(2))
        return KerasAdamState(jnp.zeros((), jnp.int32), first, second)

    def update(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        del params
        state = cast(KerasAdamState, state)
        steps = state.steps + 1
        first = optax.tree.update_moment(updates, state.first, first_decay, 1)
        second = optax.tree.update_moment(updates, state.second, second_decay, 2)
        correction = jnp.sqrt(1 - second_decay**steps) / (1 - first_decay**steps)
        direction = jax.tree.map(
            lambda mean, square: correction * mean / (jnp.sqrt(square) + KERAS_EPSILON), first, second
        )
        return direction, KerasAdamState(steps, first, second)

    return optax.GradientTransformation(init, update)


def learning_rates(
    lr: float, shape: Literal["constant", "cosine"], warmup_steps: int, total_steps: int
) -> Float[np.ndarray, "steps"]:
    """The learning rate of each step of a stage, float32: linear warm-up from 0, then constant or a cosine to 0."""
    steps = np.arange(total_steps)
    rates = np.full(total_steps, lr, np.float64)
    if shape == "cosine":
        progress = np.clip((steps - warmup_steps) / max(1, total_steps - warmup_steps), 0, 1)
        rates *= 0.5 * (1 + np.cos(np.pi * progress))
    if warmup_steps:
        rates = np.where(steps < warmup_steps, lr * (steps + 1) / warmup_steps, rates)
    return rates.astype(np.float32)


def _scale_by_rate() -> optax.GradientTransformationExtraArgs:
    def update(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None, **given: Any
    ) -> tuple[optax.Updates, optax.OptState]:
        del params
        return jax.tree.map(lambda rate, direction: rate * direction, _rates(given["rate"], updates), updates), state

    return optax.GradientTransformationExtraArgs(_no_state, update)


def _add_decayed_kernels(weight_decay: float) -> optax.GradientTransformationExtraArgs:
    def update(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None, **given: Any
    ) -> tuple[optax.Updates, optax.OptState]:
        def decayed(path: Any, change: Array, leaf: Array, rate: Array) -> Array:
            return change + rate * weight_decay * leaf if is_kernel(path[-1].key) else change

        rates = _rates(given["rate"], updates)
        return jax.tree_util.tree_map_with_path(decayed, updates, params, rates), state

    return optax.GradientTransformationExtraArgs(_no_state, update)


def _rates(rate: Any, updates: optax.Updates) -> Any:
    """A rate for each leaf, from one for all or from a tree of them."""
    return rate if isinstance(rate, Mapping) else jax.tree.map(lambda _: rate, updates)


def _no_state(params: optax.Params) -> optax.OptState:
    del params
    return optax.EmptyState()

"""The training step: gradient of the trainable partition, optimizer, running means; many steps per dispatch.

One program serves every chunk of a stage: the number of steps is a traced argument, and so are learning rates. It runs
under `shard_map`, so that each device sees its own part of the batch and only sums cross devices.
"""

# JAX, Optax and Orbax type their functions on trees only in part.
# pyright: reportUnknownMemberType=false, reportUnknownLambdaType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingTypeStubs=false

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Int, Key, UInt

from vision_transfer.config.own_parts import part
from vision_transfer.config.schema import AugmentConfig
from vision_transfer.data.augmentation.augment import augment_epoch
from vision_transfer.errors import UserError
from vision_transfer.freezing import merge
from vision_transfer.models.network import Network, Params, apply_frozen, apply_train, trains_in_parts
from vision_transfer.models.ops.microbatch import sum_on_cpu
from vision_transfer.runtime.devices import BATCH_AXIS
from vision_transfer.training.losses import CROSS_ENTROPY, example_losses, hits, kernel_penalty
from vision_transfer.training.optimizers import OptimizerSpec, descent


@dataclass(frozen=True)
class StepProgram:
    """The computation of a step, without any numbers that may change from run to run; hashable.

    Attributes:
        network: the tables.
        start: first row that runs on the inputs; None where the inputs are images.
        inference_layers: batch norms that use their running statistics, which then do not move
            (`freezing.inference_layers`).
        optimizer: the optimizer, without its learning rate.
        cut: first row with something trainable; None where that is not known.
        ema: decay of the average of the trainable parameters; 0 for none.
        l1, l2: penalties on the trainable kernels.
        label_smoothing: share of each label that is spread over all classes.
        loss: of each example: cross-entropy, or a reference to a function of the user's.
        class_weights: what an example's loss counts for, by its class; empty: all for 1.
        augmentation: of the images, inside the step; None where there is none, or where the inputs are features.
    """

    network: Network
    start: str | None
    inference_layers: frozenset[str]
    optimizer: OptimizerSpec
    cut: str | None = None
    ema: float = 0.0
    l1: float = 0.0
    l2: float = 0.0
    label_smoothing: float = 0.0
    loss: str = CROSS_ENTROPY
    class_weights: tuple[float, ...] = ()
    augmentation: AugmentConfig | None = None


class Totals(NamedTuple):
    """Weighted sums over the examples seen so far in an epoch."""

    loss: Float[Array, ""]
    hits: Float[Array, ""]
    weight: Float[Array, ""]


class TrainState(NamedTuple):
    """All that a step changes; donated to the program, so a caller must not keep it.

    Attributes:
        trainable: the trainable parameters.
        optimizer: state of the optimizer, for these only.
        batch_stats: running statistics of batch norms.
        average: moving average of `trainable`, or empty.
        step: steps taken in this stage.
        totals: of the current epoch.
        bad_step: first step with a loss that is not finite, or -1.
    """

    trainable: Params
    optimizer: Any
    batch_stats: Params
    average: Params
    step: Int[Array, ""]
    totals: Totals
    bad_step: Int[Array, ""]


class Examples(NamedTuple):
    """Inputs at the start of the program, their labels and what identifies them in random draws."""

    inputs: Array
    labels: Int[Array, "rows"]
    ids: UInt[Array, "rows"]


class StepOrder(NamedTuple):
    """For each step of an epoch: rows of `Examples`, their weights (0 for padding) and the learning rate."""

    rows: Int[Array | np.ndarray, "steps batch"]
    weights: Float[Array | np.ndarray, "steps batch"]
    rates: Float[Array | np.ndarray, "steps"]


class Chunk(NamedTuple):
    """One dispatch: a number of steps of `order`, from step `start` on.

    Every device holds all rows of `examples` (then `order.rows` counts in them), or the rows are split over the devices
    (then `order.rows` counts within each device's part).
    """

    examples: Examples
    order: StepOrder
    start: Int[Array, ""] | int
    steps: Int[Array, ""] | int


class Constants(NamedTuple):
    """Values that no step of an epoch changes; never donated.

    Attributes:
        frozen: collections (`params`, `prepared`) of what does not train; read by all devices.
        key: random key of the stage, for dropout and augmentation.
        epoch: number of the epoch, which augmentation depends on.
        multipliers: of the learning rate, a scalar for each leaf of the trainable parameters, so that no value of them
            compiles a second program; None for 1.
    """

    frozen: dict[str, Params]
    key: Key[Array, ""]
    epoch: Int[Array, ""] | int = 0
    multipliers: Params | None = None


def initial_state(program: StepProgram, trainable: Params, batch_stats: Params) -> TrainState:
    """A state at step 0. The parameters are copied, since the state is donated and `trainable` may be shared."""
    own = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), trainable)
    return TrainState(
        trainable=own,
        # an optimizer may keep the parameters themselves, and a buffer cannot be donated twice
        optimizer=jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), descent(program.optimizer).init(own)),
        batch_stats=jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), batch_stats),
        average=jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), trainable) if program.ema else {},
        step=jnp.zeros((), jnp.int32),
        totals=zero_totals(),
        bad_step=jnp.full((), -1, jnp.int32),
    )


def zero_totals() -> Totals:
    """Totals at the start of an epoch."""
    return Totals(*(jnp.zeros((), jnp.float32) for _ in Totals._fields))


@partial(jax.jit, static_argnames=("program", "mesh", "resident"), donate_argnames=("state",))
def run_steps(
    state: TrainState, chunk: Chunk, constants: Constants, *, program: StepProgram, mesh: Mesh, resident: bool
) -> TrainState:
    """Takes the steps of a chunk; the state is donated.

    The mesh has one axis, `BATCH_AXIS`. `resident` tells whether every device holds all rows of the examples.
    """
    everywhere, split = PartitionSpec(), PartitionSpec(BATCH_AXIS)
    by_column = PartitionSpec(None, BATCH_AXIS)
    rows: Any = everywhere if resident else split
    chunk_specs = (rows, (by_column, by_column, everywhere), everywhere, everywhere)
    sharded = jax.shard_map(
        partial(_local_steps, program),
        mesh=mesh,
        in_specs=(everywhere, chunk_specs, everywhere),
        out_specs=everywhere,
        check_vma=False,
    )
    as_tuples: Any = (chunk.examples, tuple(chunk.order), chunk.start, chunk.steps)
    return sharded(state, as_tuples, constants._replace(epoch=jnp.asarray(constants.epoch)))


def single_step(
    program: StepProgram,
    state: TrainState,
    batch: Examples,
    weights: Float[Array, "batch"],
    rate: Float[Array, ""],
    constants: Constants,
) -> TrainState:
    """One step on one device's part of a batch; sums are taken over `BATCH_AXIS`."""
    frozen = constants.frozen
    step_key = jax.random.fold_in(constants.key, state.step)
    example_keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(step_key, batch.ids)
    inputs = batch.inputs
    if program.augmentation is not None:
        inputs = augment_epoch(inputs, batch.ids, constants.key, constants.epoch, program.augmentation)
    total_weight = lax.psum(jnp.sum(weights), BATCH_AXIS)
    variables = {**frozen, "batch_stats": state.batch_stats}
    inputs, start = apply_frozen(program.network, variables, inputs, start=program.start, cut=program.cut)
    own = _OwnPart(inputs, batch.labels, weights, example_keys)
    gradients_of = partial(_gradients_of, program, start, variables, state.trainable, total_weight, len(weights))
    if trains_in_parts(program.network, start, program.inference_layers):
        gradients, sums = sum_on_cpu(lambda part: gradients_of(part)[:2], inputs.shape, own)
        batch_stats = state.batch_stats
    else:
        gradients, sums, batch_stats = gradients_of(own)
    gradients, sums = lax.psum((gradients, sums), BATCH_AXIS)
    factors = constants.multipliers
    rates = rate if factors is None else jax.tree.map(lambda factor: factor * rate, factors)
    change, optimizer = descent(program.optimizer).update(gradients, state.optimizer, state.trainable, rate=rates)
    trainable = jax.tree.map(lambda leaf, less: leaf - less, state.trainable, change)
    average = state.average
    if program.ema:
        average = jax.tree.map(lambda mean, leaf: program.ema * mean + (1 - program.ema) * leaf, average, trainable)
    failed = (state.bad_step < 0) & ~jnp.isfinite(sums[0])
    totals = Totals(state.totals.loss + sums[0], state.totals.hits + sums[1], state.totals.weight + total_weight)
    return TrainState(
        trainable=trainable,
        optimizer=optimizer,
        batch_stats=batch_stats,
        average=average,
        step=state.step + 1,
        totals=totals,
        bad_step=jnp.where(failed, state.step, state.bad_step),
    )


class _OwnPart(NamedTuple):
    """One device's part of a batch, or a part of that."""

    inputs: Array
    labels: Int[Array, "rows"]
    weights: Float[Array, "rows"]
    keys: Key[Array, "rows"]


def _gradients_of(
    program: StepProgram,
    start: str | None,
    variables: dict[str, Params],
    trainable: Params,
    total_weight: Float[Array, ""],
    all_rows: int,
    rows: _OwnPart,
) -> tuple[Params, Float[Array, "2"], Params]:
    """The contribution of some of a device's `all_rows` rows to the step.

    Returns:
        Their share of the gradients of the mean loss over all devices; the sums of their losses and hits; and the
        running statistics after them.
    """

    def share_of_loss(trainable: Params) -> tuple[Array, tuple[Array, Params]]:
        logits, batch_stats = apply_train(
            program.network,
            {**variables, "params": merge(variables["params"], trainable)},
            rows.inputs,
            start=start,
            example_keys=rows.keys,
            example_weights=rows.weights,
            inference_layers=program.inference_layers,
            batch_axis=BATCH_AXIS,
        )
        if program.loss == CROSS_ENTROPY:
            losses = example_losses(logits, rows.labels, program.label_smoothing)
        else:
            losses = part(program.loss)(logits, rows.labels)
            if jnp.shape(losses) != rows.labels.shape:
                raise UserError(
                    f"{program.loss}: returned the shape {jnp.shape(losses)} for logits {logits.shape} and labels "
                    f"{rows.labels.shape}; return a loss for each example, {rows.labels.shape}"
                )
        if program.class_weights:
            # as Keras's class_weight: the sum is divided by the number of examples and not by that of their weights
            losses *= jnp.asarray(program.class_weights)[rows.labels]
        share = jnp.sum(rows.weights * losses) / total_weight
        if program.l1 or program.l2:
            parts = lax.axis_size(BATCH_AXIS) * (all_rows // len(rows.labels))
            share += kernel_penalty(trainable, program.l1, program.l2) / parts
        sums = jnp.stack([jnp.sum(rows.weights * losses), jnp.sum(rows.weights * hits(logits, rows.labels))])
        return share, (sums, batch_stats)

    (_, (sums, batch_stats)), gradients = jax.value_and_grad(share_of_loss, has_aux=True)(trainable)
    return gradients, sums, batch_stats


def _local_steps(
    program: StepProgram, state: TrainState, chunk: tuple[Examples, Any, Array, Array], constants: Constants
) -> TrainState:
    examples, (rows, weights, rates), start, steps = chunk

    def one(position: Array, state: TrainState) -> TrainState:
        batch = jax.tree.map(lambda column: column[rows[position]], examples)
        return single_step(program, state, batch, weights[position], rates[position], constants)

    return lax.fori_loop(start, start + steps, one, state)

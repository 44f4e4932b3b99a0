"""One stage of training: epochs of chunks of steps, the best epoch by validation, checkpoints, exact resumption."""

# JAX, Optax and Orbax type their functions on trees only in part.
# pyright: reportUnknownMemberType=false, reportUnknownLambdaType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingTypeStubs=false

import math
import time
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Key

from vision_transfer import freezing
from vision_transfer.config import Config
from vision_transfer.data.augmentation.augment import bank_variant
from vision_transfer.data.batches import steps_of_epoch, training_batches
from vision_transfer.errors import UserError
from vision_transfer.models.network import Network, Params, params_of, prepared_kernels
from vision_transfer.runtime import hosts
from vision_transfer.runtime.console import duration
from vision_transfer.runtime.devices import padded_batch, replicate, share
from vision_transfer.runtime.preemption import Stopped
from vision_transfer.training import checkpoints
from vision_transfer.training.device_feed import Feed, TrainingRows, make_feed, placement
from vision_transfer.training.dispatch import Pace
from vision_transfer.training.lr_multipliers import resolve_multipliers, trainable_multipliers
from vision_transfer.training.optimizers import learning_rates
from vision_transfer.training.stage import (
    Progress,
    Stage,
    StageOutcome,
    Surroundings,
    TrainingData,
    Variables,
    Weights,
    progress_of,
    step_program,
)
from vision_transfer.training.step import (
    Constants,
    StepOrder,
    StepProgram,
    TrainState,
    initial_state,
    run_steps,
    zero_totals,
)
from vision_transfer.training.validation import monitored, validate

BEST, LAST = "best", "last"


def train_stage(
    config: Config,
    network: Network,
    stage: Stage,
    variables: Variables,
    data: Callable[[], TrainingData],
    mesh: Mesh,
    around: Surroundings,
) -> StageOutcome:
    """Trains a stage to its end, from its last checkpoint if there is one.

    Of `variables`, trainable parameters and running statistics are copied, never donated. `data` gives the examples at
    the stage's start; it is called only if there is something left to train.

    Raises:
        UserError: a loss that is not finite, or a damaged checkpoint.
        Stopped: `around.stop` received a signal; the same call resumes from there.
    """
    for name in (LAST, BEST):
        checkpoints.clean(around.checkpoints / name)
    state, best, progress = _last_checkpoint(config, network, stage, variables, around.checkpoints)
    state, best, progress = _as_on_first_host(stage, state, best, progress)
    was_finished = progress.finished
    if not was_finished:
        loop, progress = _make_loop(config, network, stage, variables, data(), mesh, around, progress)
        state, pace = replicate(state, mesh), Pace(config.checkpoint.every_seconds)
        with around.stop.deferred():
            while not progress.finished:
                state, progress = _train_epoch(loop, state, best, progress, pace)
                state, best, progress = _close_epoch(loop, state, best, progress, pace)
                due = hosts.agreed(0, pace.checkpoint_is_due(), None)[1]
                if progress.finished or due:
                    loop.save(state, best, progress)
                around.record(progress.history)
    if hosts.is_first() and not (was_finished and checkpoints.is_saved(around.checkpoints / BEST)):
        checkpoints.save(around.checkpoints / BEST, int(state.step), best, asdict(progress))
    return StageOutcome(best, _host_copy(_evaluated(stage, state)), progress)


def trained_stage(config: Config, network: Network, stage: Stage, variables: Variables, folder: Path) -> StageOutcome:
    """The outcome of a stage that was trained to its end, read from its checkpoint; `variables` give names and shapes.

    Raises:
        UserError: no checkpoint, a damaged one, or the stage is not finished.
    """
    state, best, progress = _last_checkpoint(config, network, stage, variables, folder)
    if not progress.finished:
        raise UserError(f"{folder}: stage {stage.name!r} is not finished; the command that began it resumes it")
    return StageOutcome(best, _host_copy(_evaluated(stage, state)), progress)


def _as_on_first_host(
    stage: Stage, state: TrainState, best: Weights, progress: Progress
) -> tuple[TrainState, Weights, Progress]:
    """State, best weights and progress from the first host's checkpoint, on all hosts; only it reads the folder."""
    found = hosts.from_first(f"progress of {stage.name}", asdict(progress))
    if not hosts.several():
        return state, best, progress
    state, best = hosts.tree_from_first((state, best))
    return state, best, progress_of(found)


def _last_checkpoint(
    config: Config, network: Network, stage: Stage, variables: Variables, folder: Path
) -> tuple[TrainState, Weights, Progress]:
    """State, best weights and progress of the last checkpoint; those of the start where there is none."""
    trainable, _ = freezing.partition(variables["params"], stage.mask)
    program = step_program(config, network, stage)

    def start() -> tuple[TrainState, Weights]:
        state = initial_state(program, trainable, variables["batch_stats"])
        return state, _evaluated(stage, state)

    saved = checkpoints.load(folder / LAST, jax.eval_shape(start))
    if saved is None:
        state, best = start()
        return state, _host_copy(best), Progress()
    state, best = saved.tree
    try:
        return state, best, progress_of(saved.metadata)
    except (TypeError, KeyError, ValueError) as error:
        raise UserError(
            f"checkpoint in {folder / LAST}: does not hold the progress of a stage ({error!r}); remove this folder to "
            "train again"
        ) from error


@dataclass(frozen=True)
class _Loop:
    """Values that stay the same while a stage trains: those of `train_stage`, and what follows from them."""

    config: Config
    stage: Stage
    data: TrainingData
    mesh: Mesh
    around: Surroundings
    program: StepProgram
    constants: Constants
    rates: Float[np.ndarray, "steps"]
    steps_per_epoch: int
    feed: Feed

    def save(self, state: TrainState, best: Weights, progress: Progress) -> None:
        """Writes a checkpoint from which the stage resumes exactly, on the first host."""
        if not hosts.is_first():
            return
        checkpoints.save(self.around.checkpoints / LAST, int(state.step), (state, best), asdict(progress))


def _make_loop(
    config: Config,
    network: Network,
    stage: Stage,
    variables: Variables,
    data: TrainingData,
    mesh: Mesh,
    around: Surroundings,
    progress: Progress,
) -> tuple[_Loop, Progress]:
    """The loop's constants, and the progress, with `parts` set where the rows are split over the devices."""
    examples, settings, optimizer = data.train.examples, stage.settings, stage.settings.optimizer
    trainable, frozen = freezing.partition(variables["params"], stage.mask)
    program = step_program(config, network, stage, data.train.labels[:examples])
    multipliers = trainable_multipliers(resolve_multipliers(optimizer.lr_multipliers, network), trainable)
    frozen_collections = _frozen_collections(config, program, {**variables, "params": frozen}, mesh)
    shared = share(frozen_collections, mesh)
    constants = Constants(shared, stage_key(config.seed, stage.name), multipliers=multipliers)
    steps_per_epoch = steps_of_epoch(settings, examples, config.batch_size)
    steps = settings.epochs * steps_per_epoch
    rates = learning_rates(optimizer.lr, optimizer.lr_schedule, optimizer.warmup_steps, steps)
    feed, progress = _placed(config, stage, data.train, mesh, around, progress)
    return _Loop(config, stage, data, mesh, around, program, constants, rates, steps_per_epoch, feed), progress


def _placed(
    config: Config, stage: Stage, rows: TrainingRows, mesh: Mesh, around: Surroundings, progress: Progress
) -> tuple[Feed, Progress]:
    """The rows where they fit. Rows that are split over the devices are drawn in another order, which a stage keeps."""
    splittable = progress.parts == mesh.size if progress.has_begun else config.balance != "sampling"
    # Devices of one kind may still have unequal room.
    where = hosts.from_first(f"place of the rows of {stage.name}", placement(rows, mesh, splittable=splittable))
    if where == "split":
        around.screen.say(
            f"The rows of stage {stage.name!r} do not fit one device: they are split over {mesh.size}, and each batch "
            "takes from all parts in turn."
        )
        progress = replace(progress, parts=mesh.size)
    return make_feed(rows, mesh, where), progress


def _frozen_collections(config: Config, program: StepProgram, frozen: Variables, mesh: Mesh) -> dict[str, Params]:
    """The frozen parameters of the layers that run in a step, and their prepared kernels."""
    batch, network = padded_batch(config.batch_size, mesh) // mesh.size, program.network
    return {
        "params": params_of(network.between(program.start), frozen["params"]),
        "prepared": prepared_kernels(
            network, frozen, batch=batch, start=program.start, inference_layers=program.inference_layers
        ),
    }


def stage_key(seed: int, name: str) -> Key[Array, ""]:
    """Random key of a stage, from the run's seed and the stage's name: of its dropout and fresh augmentation."""
    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))


def _train_epoch(
    loop: _Loop, state: TrainState, best: Weights, progress: Progress, pace: Pace
) -> tuple[TrainState, Progress]:
    """Takes the steps that the current epoch still lacks."""
    title = f"{loop.stage.name} epoch {progress.epoch + 1}/{loop.stage.settings.epochs}"
    order, steps, stop = _order(loop, progress), loop.steps_per_epoch, loop.around.stop
    constants = loop.constants._replace(epoch=progress.epoch)
    most = loop.feed.most_steps(order)
    with loop.around.screen.bar(title, steps, "steps", images_each=loop.config.batch_size) as advance:
        advance(progress.step)
        if progress.step == steps:  # stopped after its last step, before validation
            return state, progress
        chunk = loop.feed.chunk(order, progress.step, pace.steps(most, steps - progress.step))
        while progress.step < steps:
            began, taken = time.perf_counter(), int(chunk.steps)
            state = run_steps(
                state, chunk, constants, program=loop.program, mesh=loop.mesh, resident=loop.feed.resident
            )
            left = steps - progress.step - taken
            if left:
                # read and sent while the devices compute
                chunk = loop.feed.chunk(order, progress.step + taken, pace.steps(most, left))
            bad_step = int(state.bad_step)
            seconds = time.perf_counter() - began
            if bad_step >= 0:
                raise UserError(_not_finite(loop, bad_step))
            before, progress = progress.seconds, replace(progress, step=progress.step + taken)
            advance(taken, _time_left(loop, replace(progress, seconds=before + seconds)))
            due = left > 0 and pace.checkpoint_is_due()
            seconds, due, received = hosts.agreed(seconds, due, stop.received)
            pace.took(taken, seconds)
            progress = replace(progress, seconds=before + seconds)
            if received is not None:
                loop.save(state, best, progress)
                hosts.barrier()
                where = f"epoch {progress.epoch + 1}, step {progress.step}"
                raise Stopped(received, f"A checkpoint of stage {loop.stage.name!r} is at {where}.")
            if due:
                loop.save(state, best, progress)
    return state, progress


def _close_epoch(
    loop: _Loop, state: TrainState, best: Weights, progress: Progress, pace: Pace
) -> tuple[TrainState, Weights, Progress]:
    """Validation, the epoch's record, the best epoch so far, and whether to stop."""
    stage, settings, began = loop.stage, loop.stage.settings, time.perf_counter()
    weights = _evaluated(stage, state)
    variables = loop.constants.frozen | {
        "params": freezing.merge(loop.constants.frozen["params"], weights.trainable),
        "batch_stats": weights.batch_stats,
    }
    validation = validate(loop.config, loop.program.network, stage, variables, loop.data, loop.mesh, progress.epoch)
    own = {} if validation is None else validation.own
    totals = jax.device_get(state.totals)
    seconds = progress.seconds + time.perf_counter() - began
    epoch = progress.epoch + 1
    record = {
        "stage": stage.name,
        "epoch": epoch,
        "train_loss": float(totals.loss / totals.weight),
        "train_accuracy": float(totals.hits / totals.weight),
        # JSON has no NaN.
        "validation_loss": validation.loss if validation is not None and math.isfinite(validation.loss) else None,
        "validation_accuracy": None if validation is None else validation.accuracy,
        **{f"validation_{name}": value for name, value in own.items()},
        "lr": float(loop.rates[int(state.step) - 1]),
        "seconds": round(seconds - sum(past["seconds"] for past in progress.history), 4),
    }
    value = monitored(settings.monitor, validation)
    is_best = value is None or (
        not any(map(math.isnan, value)) and (progress.best_value is None or value < progress.best_value)
    )
    if is_best:
        best = _host_copy(weights)
    best_epoch = epoch if is_best else progress.best_epoch
    out_of_patience = settings.patience is not None and epoch - best_epoch >= settings.patience
    loop.around.screen.say(_epoch_line(stage, record, is_best))
    progress = Progress(
        epoch=epoch,
        step=0,
        history=(*progress.history, record),
        best_epoch=best_epoch,
        best_value=value if is_best else progress.best_value,
        seconds=seconds,
        step_ms=pace.step_ms() or progress.step_ms,
        finished=epoch == settings.epochs or out_of_patience,
        parts=progress.parts,
    )
    return state._replace(totals=replicate(zero_totals(), loop.mesh)), best, progress


def _order(loop: _Loop, progress: Progress) -> StepOrder:
    config, steps, train, epoch = loop.config, loop.steps_per_epoch, loop.data.train, progress.epoch
    rows, weights = training_batches(
        config.seed,
        train.examples,
        config.batch_size,
        padded_batch(config.batch_size, loop.mesh),
        start=epoch * steps,
        count=steps,
        balanced_by=train.labels[: train.examples] if config.balance == "sampling" else None,
        parts=progress.parts,
    )
    first = bank_variant(epoch, train.variants) * train.examples
    return StepOrder(rows + np.int32(first), weights, loop.rates[epoch * steps : (epoch + 1) * steps])


def _evaluated(stage: Stage, state: TrainState) -> Weights:
    return Weights(state.average if stage.settings.optimizer.ema else state.trainable, state.batch_stats)


def _host_copy(weights: Weights) -> Weights:
    # On a CPU the host's view of a device array shares its memory, which donation would overwrite.
    return jax.tree.map(lambda leaf: np.array(leaf, copy=True), weights)


def _time_left(loop: _Loop, progress: Progress) -> str:
    """The time that the stage still needs at its pace so far, for the bar; nothing at its start."""
    settings, done = loop.stage.settings, progress.epoch + progress.step / loop.steps_per_epoch
    if not done:
        return ""
    left = duration(progress.seconds / done * (settings.epochs - done))
    return f"stage: {left if settings.patience is None else f'at most {left}'} more"


def _epoch_line(stage: Stage, record: dict[str, Any], is_best: bool) -> str:
    """One line of at most 80 columns: loss and accuracy of training and, where there is one, of validation."""
    parts = [
        f"  {stage.name} {record['epoch']:>3}/{stage.settings.epochs}",
        f"train {record['train_loss']:.4f} {record['train_accuracy']:.4f}",
        f"{record['seconds']:.1f} s{'  best' if is_best else ''}",
    ]
    if record["validation_accuracy"] is not None:
        loss = math.nan if record["validation_loss"] is None else record["validation_loss"]
        parts.insert(2, f"validation {loss:.4f} {record['validation_accuracy']:.4f}")
    return "  ".join(parts)


def _not_finite(loop: _Loop, step: int) -> str:
    folder, name = loop.around.checkpoints / LAST, loop.stage.name
    saved = checkpoints.load_metadata(folder)
    kept = (
        f"the last good checkpoint is {folder}, after epoch {saved['epoch']}"
        if saved
        else "no checkpoint of this stage was written before"
    )
    return (
        f"stage {name!r}: the loss is not finite at step {step} (epoch {step // loop.steps_per_epoch + 1}); {kept}. "
        f"Try a smaller config.stages.{name}.optimizer.lr, or config.stages.{name}.optimizer.clip_norm=1.0"
    )

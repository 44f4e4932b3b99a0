"""One stage of training: epochs of chunks of steps, the best epoch by validation, checkpoints, exact resumption."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Key

from vision_transfer.data.augmentation import bank_variant
from vision_transfer.data.batches import training_batches
from vision_transfer.errors import UserError
from vision_transfer.models.network import Params
from vision_transfer.runtime.console import Advance
from vision_transfer.runtime.devices import padded_batch, replicate, share
from vision_transfer.runtime.preemption import Stopped
from vision_transfer.train import checkpoints
from vision_transfer.train.device_feed import EpochOrder, Feed, make_feed
from vision_transfer.train.dispatch import Pace
from vision_transfer.train.lr_multipliers import factors
from vision_transfer.train.stage_types import (
    Progress,
    StageData,
    StageOutcome,
    StagePlan,
    Watch,
    Weights,
    progress_from,
    stage_key,
    time_left,
)
from vision_transfer.train.step import TrainState, initial_state, run_steps, zero_totals
from vision_transfer.train.validation import monitored, validate

BEST, LAST = "best", "last"


def train_stage(
    plan: StagePlan,
    params: Params,
    frozen: dict[str, Params],
    batch_stats: Params,
    data: Callable[[], StageData],
    mesh: Mesh,
    folder: Path,
    watch: Watch,
) -> StageOutcome:
    """Trains a stage to its end, from where its checkpoint stands if there is one.

    Args:
        plan: what to do.
        params: the trainable parameters at the start; copied, never donated.
        frozen: collections of what does not train.
        batch_stats: running statistics at the start.
        data: gives the examples at the start of the program; called only if there is something left to train.
        mesh: devices.
        folder: of the stage's checkpoints.
        watch: screen, records and interruption.

    Raises:
        UserError: a loss that is not finite, or a damaged checkpoint.
        Stopped: `watch.stop` received a signal; the same call goes on from there.
    """
    for name in (LAST, BEST):
        checkpoints.clean(folder / name)
    state, best, progress = _where_it_stands(plan, params, batch_stats, folder)
    if not progress.finished:
        rows = data()
        stage = _Stage(plan, share(frozen, mesh), rows, make_feed(rows.train, mesh), mesh, folder / LAST, watch)
        with watch.stop.deferred():
            state, best, progress = _run_epochs(stage, replicate(state, mesh), best, progress)
    checkpoints.save(folder / BEST, int(state.step), best, asdict(progress))
    return StageOutcome(best, _host_copy(_evaluated(plan, state)), progress)


def trained_stage(plan: StagePlan, params: Params, batch_stats: Params, folder: Path) -> StageOutcome:
    """How a stage that was trained to its end ended, read from its checkpoint.

    Args:
        plan: what it did.
        params: the trainable parameters, for their names and shapes.
        batch_stats: the same of running statistics.
        folder: of the stage's checkpoints.

    Raises:
        UserError: no checkpoint, a damaged one, or the stage is not finished.
    """
    state, best, progress = _where_it_stands(plan, params, batch_stats, folder)
    if not progress.finished:
        raise UserError(f"{folder}: stage {plan.name!r} is not finished; the command that began it goes on with it")
    return StageOutcome(best, _host_copy(_evaluated(plan, state)), progress)


def _where_it_stands(
    plan: StagePlan, params: Params, batch_stats: Params, folder: Path
) -> tuple[TrainState, Weights, Progress]:
    """State, best weights and progress of the last checkpoint; those of the start where there is none."""
    state = initial_state(plan.program, params, batch_stats)
    best = _host_copy(_evaluated(plan, state))
    saved = checkpoints.load(folder / LAST, (state, best))
    if saved is None:
        return state, best, Progress()
    state, best = saved.tree
    return state, best, progress_from(saved.metadata)


@dataclass(frozen=True)
class _Stage:
    """What stays the same during a stage."""

    plan: StagePlan
    frozen: dict[str, Params]
    data: StageData
    feed: Feed
    mesh: Mesh
    folder: Path
    watch: Watch

    @property
    def key(self) -> Key[Array, ""]:
        """Random key of the stage, from seed and name."""
        return stage_key(self.plan.seed, self.plan.name)

    def save(self, state: TrainState, best: Weights, progress: Progress) -> None:
        """Writes a checkpoint from which the stage goes on exactly."""
        checkpoints.save(self.folder, int(state.step), (state, best), asdict(progress))


def _run_epochs(
    stage: _Stage, state: TrainState, best: Weights, progress: Progress
) -> tuple[TrainState, Weights, Progress]:
    pace = Pace(stage.plan.checkpoint_seconds)
    while not progress.finished:
        title = f"{stage.plan.name} epoch {progress.epoch + 1}/{stage.plan.epochs}"
        with stage.watch.screen.bar(
            title, stage.plan.steps_per_epoch, "steps", images_each=stage.plan.batch_size
        ) as advance:
            advance(progress.step)
            state, progress = _train_epoch(stage, state, best, progress, pace, advance)
        state, best, progress = _close_epoch(stage, state, best, progress, pace)
        if progress.finished or pace.checkpoint_is_due():
            stage.save(state, best, progress)
        stage.watch.record(progress.history)
    return state, best, progress


def _train_epoch(
    stage: _Stage, state: TrainState, best: Weights, progress: Progress, pace: Pace, advance: Advance
) -> tuple[TrainState, Progress]:
    """Takes the steps that the current epoch still lacks."""
    plan, order = stage.plan, _order(stage, progress.epoch)
    if progress.step == plan.steps_per_epoch:
        # stopped behind its last step, before validation
        return state, progress
    multipliers = factors(plan.multipliers, state.trainable)
    most = stage.feed.most_steps(order)
    chunk = stage.feed.chunk(order, progress.step, pace.steps(most, plan.steps_per_epoch - progress.step))
    while progress.step < plan.steps_per_epoch:
        began = time.perf_counter()
        state = run_steps(
            plan.program,
            stage.mesh,
            stage.feed.resident,
            state,
            stage.frozen,
            *chunk,
            stage.key,
            progress.epoch,
            multipliers,
        )
        taken = chunk.steps
        left = plan.steps_per_epoch - progress.step - taken
        if left:
            # read and sent while the devices are at work
            chunk = stage.feed.chunk(order, progress.step + taken, pace.steps(most, left))
        bad_step = int(state.bad_step)
        seconds = time.perf_counter() - began
        pace.took(taken, seconds)
        progress = replace(progress, step=progress.step + taken, seconds=progress.seconds + seconds)
        if bad_step >= 0:
            raise UserError(_not_finite(stage, bad_step))
        advance(taken, time_left(plan, progress))
        if stage.watch.stop.received is not None:
            stage.save(state, best, progress)
            where = f"A checkpoint of stage {plan.name!r} is at epoch {progress.epoch + 1}, step {progress.step}."
            raise Stopped(stage.watch.stop.received, where)
        if left and pace.checkpoint_is_due():
            stage.save(state, best, progress)
    return state, progress


def _close_epoch(
    stage: _Stage, state: TrainState, best: Weights, progress: Progress, pace: Pace
) -> tuple[TrainState, Weights, Progress]:
    """Validation, the epoch's record, the best epoch so far, and whether to stop."""
    plan, began = stage.plan, time.perf_counter()
    weights = _evaluated(plan, state)
    validation = validate(plan, stage.frozen, stage.data, stage.mesh, weights, progress.epoch)
    totals = jax.device_get(state.totals)
    seconds = progress.seconds + time.perf_counter() - began
    epoch = progress.epoch + 1
    record = {
        "stage": plan.name,
        "epoch": epoch,
        "train_loss": float(totals.loss / totals.weight),
        "train_accuracy": float(totals.hits / totals.weight),
        "validation_loss": None if validation is None else validation.loss,
        "validation_accuracy": None if validation is None else validation.accuracy,
        "lr": float(plan.rates[int(state.step) - 1]),
        "seconds": round(seconds - sum(past["seconds"] for past in progress.history), 4),
    }
    value = monitored(plan, validation)
    is_best = value is None or (not math.isnan(value) and (progress.best_value is None or value < progress.best_value))
    if is_best:
        best = _host_copy(weights)
    best_epoch = epoch if is_best else progress.best_epoch
    out_of_patience = plan.patience is not None and epoch - best_epoch >= plan.patience
    stage.watch.screen.say(_epoch_line(plan, record, is_best))
    progress = Progress(
        epoch=epoch,
        step=0,
        history=(*progress.history, record),
        best_epoch=best_epoch,
        best_value=value if is_best else progress.best_value,
        seconds=seconds,
        step_ms=pace.step_ms() or progress.step_ms,
        finished=epoch == plan.epochs or out_of_patience,
    )
    return state._replace(totals=replicate(zero_totals(), stage.mesh)), best, progress


def _order(stage: _Stage, epoch: int) -> EpochOrder:
    plan, steps, train = stage.plan, stage.plan.steps_per_epoch, stage.data.train
    rows, weights = training_batches(
        plan.seed,
        train.examples,
        plan.batch_size,
        padded_batch(plan.batch_size, stage.mesh),
        start=epoch * steps,
        count=steps,
        balanced_by=train.labels[: train.examples] if plan.balanced else None,
    )
    first = bank_variant(epoch, train.variants) * train.examples
    return EpochOrder(rows + np.int32(first), weights, plan.rates[epoch * steps : (epoch + 1) * steps])


def _evaluated(plan: StagePlan, state: TrainState) -> Weights:
    return Weights(state.average if plan.program.ema else state.trainable, state.batch_stats)


def _host_copy(weights: Weights) -> Weights:
    # On a CPU the host's view of a device array shares its memory, which donation would overwrite.
    return jax.tree.map(lambda leaf: np.array(leaf, copy=True), weights)


def _epoch_line(plan: StagePlan, record: dict[str, Any], is_best: bool) -> str:
    """One line of at most 80 columns: loss and accuracy of training and, where there is one, of validation."""
    parts = [
        f"  {plan.name} {record['epoch']:>3}/{plan.epochs}",
        f"train {record['train_loss']:.4f} {record['train_accuracy']:.4f}",
        f"{record['seconds']:.1f} s{'  best' if is_best else ''}",
    ]
    if record["validation_loss"] is not None:
        parts.insert(2, f"validation {record['validation_loss']:.4f} {record['validation_accuracy']:.4f}")
    return "  ".join(parts)


def _not_finite(stage: _Stage, step: int) -> str:
    saved = checkpoints.load_metadata(stage.folder)
    kept = (
        f"the last good checkpoint is {stage.folder}, after epoch {saved['epoch']}"
        if saved
        else "no checkpoint of this stage was written before"
    )
    name, epoch = stage.plan.name, step // stage.plan.steps_per_epoch + 1
    return (
        f"stage {name!r}: the loss is not finite at step {step} (epoch {epoch}); {kept}. "
        f"Try a smaller config.stages.{name}.optimizer.lr, or config.stages.{name}.optimizer.clip_norm=1.0"
    )

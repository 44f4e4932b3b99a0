"""What goes into a stage of training and what comes out of it."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int32, Key

from vision_transfer.freezing import merge
from vision_transfer.models.inference import Rows
from vision_transfer.models.network import Params
from vision_transfer.runtime.console import Screen, duration
from vision_transfer.runtime.preemption import StopSignal
from vision_transfer.train.device_feed import TrainingRows
from vision_transfer.train.lr_multipliers import Multipliers
from vision_transfer.train.step import StepProgram


@dataclass(frozen=True)
class StagePlan:
    """What a stage does, resolved to numbers.

    Attributes:
        name: of the stage.
        program: what a step computes.
        evaluation_start: first layer that validation runs; None for all, from the images.
        epochs: most epochs.
        steps_per_epoch: steps that count as an epoch.
        batch_size: examples per step, over all devices.
        eval_batch_size: examples per step of validation.
        validation_steps: batches of validation in each epoch; None for all of the split.
        rates: learning rate of each step of the stage.
        monitor: `validation_loss` or `validation_accuracy`.
        patience: epochs without a better value after which to stop; None for never.
        seed: of data order and dropout.
        checkpoint_seconds: longest time between two checkpoints.
        balanced: whether each class is drawn equally often.
        multipliers: of the learning rate, by layer and parameter; where one is missing, 1.
    """

    name: str
    program: StepProgram
    evaluation_start: str | None
    epochs: int
    steps_per_epoch: int
    batch_size: int
    eval_batch_size: int
    validation_steps: int | None
    rates: Float[np.ndarray, "steps"]
    monitor: str
    patience: int | None
    seed: int
    checkpoint_seconds: float
    balanced: bool = False
    multipliers: Multipliers = field(default_factory=dict)


@dataclass(frozen=True)
class StageData:
    """Training rows at the start of the program; validation inputs at `evaluation_start`, with their labels."""

    train: TrainingRows
    validation_inputs: Rows
    validation_labels: Int32[np.ndarray, "rows"]


class Weights(NamedTuple):
    """What a stage ends with: the parameters that it trained, and running statistics."""

    trainable: Params
    batch_stats: Params


@dataclass(frozen=True)
class Progress:
    """Where a stage stands; saved with each checkpoint as JSON.

    Attributes:
        epoch: finished epochs.
        step: steps taken in the current epoch.
        history: a record per finished epoch, as in `metrics.jsonl`.
        best_epoch: number of the best epoch, from 1; 0 before the first.
        best_value: its monitored value, the lower the better; None before the first.
        seconds: spent in training steps and validation.
        step_ms: median time of a step in milliseconds, or None before it is known.
        finished: whether the stage is done.
    """

    epoch: int = 0
    step: int = 0
    history: tuple[dict[str, Any], ...] = ()
    best_epoch: int = 0
    best_value: float | None = None
    seconds: float = 0.0
    step_ms: float | None = None
    finished: bool = False


@dataclass(frozen=True)
class StageOutcome:
    """How a stage ended: weights of its best and its last epoch, on the host, and its records."""

    best: Weights
    last: Weights
    progress: Progress


@dataclass(frozen=True)
class Watch:
    """What a stage tells the world while it runs.

    Attributes:
        screen: for the bar and a line per epoch.
        record: called with the records of all finished epochs when one more is finished.
        stop: whether to save and stop now.
    """

    screen: Screen
    record: Callable[[tuple[dict[str, Any], ...]], None]
    stop: StopSignal


def stage_key(seed: int, name: str) -> Key[Array, ""]:
    """Random key of a stage, from the run's seed and the stage's name: of its dropout and fresh augmentation."""
    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))


def time_left(plan: StagePlan, progress: Progress) -> str:
    """How long the stage goes on at the pace it had so far, for the bar; nothing at its start."""
    done = progress.epoch + progress.step / plan.steps_per_epoch
    if not done:
        return ""
    left = duration(progress.seconds / done * (plan.epochs - done))
    return f"stage: {left if plan.patience is None else f'at most {left}'} more"


def progress_from(metadata: dict[str, Any]) -> Progress:
    """The progress that was saved with a checkpoint."""
    values: dict[str, Any] = {**metadata, "history": tuple(metadata["history"])}
    return Progress(**values)


def with_weights(variables: dict[str, Params], outcome: StageOutcome, which: str) -> dict[str, Params]:
    """The variables with what a stage trained: those of its `best` or its `last` epoch."""
    weights = outcome.best if which == "best" else outcome.last
    return {
        "params": merge(variables["params"], weights.trainable),
        "batch_stats": merge(variables["batch_stats"], weights.batch_stats),
    }

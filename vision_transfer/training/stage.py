"""A stage of training: what it is, what it is given, and how it ends."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int32

from vision_transfer.config import Config, StageConfig
from vision_transfer.config.schema import AugmentConfig
from vision_transfer.data.rows import Rows
from vision_transfer.freezing import Mask, inference_layers, merge
from vision_transfer.models.backbones.registry import find_backbone
from vision_transfer.models.network import Network, Params
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.preemption import StopSignal
from vision_transfer.training.device_feed import TrainingRows
from vision_transfer.training.losses import class_weights
from vision_transfer.training.optimizers import OptimizerSpec
from vision_transfer.training.step import StepProgram

# `params` and `batch_stats` of a network, on the host.
Variables = dict[str, Params]


@dataclass(frozen=True)
class Stage:
    """A stage of the config, resolved against the network: its settings, and the mask of what trains.

    Attributes:
        cut: first layer with something trainable.
        cached: the layer whose outputs are cached, or None; with fresh augmentation those of validation and test only.
        evaluation_start: the layer after `cached`, where validation and test start; None for all, from the images.
        augmentation: of the training images, or None.
    """

    name: str
    settings: StageConfig
    mask: Mask
    cut: str
    cached: str | None = None
    evaluation_start: str | None = None
    augmentation: AugmentConfig | None = None

    @property
    def trains_from_cache(self) -> bool:
        """Whether the steps of training start from cached outputs, and not from the images."""
        fresh = self.augmentation is not None and not self.augmentation.bank
        return self.cached is not None and not fresh

    @property
    def start(self) -> str | None:
        """First layer that runs in a step of training; None for all, from the images."""
        return self.evaluation_start if self.trains_from_cache else None


@dataclass(frozen=True)
class TrainingData:
    """Training rows at a stage's start; validation inputs at its `evaluation_start`, with their labels."""

    train: TrainingRows
    validation_inputs: Rows
    validation_labels: Int32[np.ndarray, "rows"]


class Weights(NamedTuple):
    """The weights that a stage ends with: the parameters that it trained, and running statistics."""

    trainable: Params
    batch_stats: Params


@dataclass(frozen=True)
class Progress:
    """The progress of a stage; saved with each checkpoint as JSON.

    Attributes:
        epoch: finished epochs.
        step: steps taken in the current epoch.
        history: a record per finished epoch, as in `metrics.jsonl`.
        best_epoch: number of the best epoch, from 1; 0 before the first.
        best_value: its monitored values, as `monitored` orders them; None before the first.
        seconds: spent in training steps and validation.
        step_ms: median time of a step in milliseconds, or None before it is known.
        parts: of the rows, from which batches take in turn: the number of devices where the rows are split over them
            when the stage begins. Kept when it resumes, whatever fits then.
    """

    epoch: int = 0
    step: int = 0
    history: tuple[dict[str, Any], ...] = ()
    best_epoch: int = 0
    best_value: list[float] | None = None
    seconds: float = 0.0
    step_ms: float | None = None
    finished: bool = False
    parts: int = 1

    @property
    def has_begun(self) -> bool:
        """Whether any step was taken."""
        return self.epoch > 0 or self.step > 0


def progress_of(values: Any) -> Progress:
    """The progress of a stage from the JSON that was saved of it.

    Raises:
        TypeError, KeyError, ValueError: it is something else, such as what a stranger put into a checkpoint.
    """
    found: dict[str, Any] = {**values, "history": tuple(values["history"])}
    progress = Progress(**found)
    numbers: list[Any] = [progress.step, progress.seconds, progress.step_ms or 0.0, *(progress.best_value or ())]
    if not all(isinstance(number, int | float) for number in numbers):
        raise TypeError("it has other values than numbers")
    epochs = [record["epoch"] for record in progress.history]
    if epochs != [*range(1, len(epochs) + 1)] or not 0 <= progress.best_epoch <= progress.epoch == len(epochs):
        raise ValueError("its epochs are not those of a stage")
    return progress


@dataclass(frozen=True)
class StageOutcome:
    """The outcome of a stage: weights of its best and its last epoch, on the host, and its records."""

    best: Weights
    last: Weights
    progress: Progress


@dataclass(frozen=True)
class Surroundings:
    """The surroundings of a stage while it trains.

    Attributes:
        checkpoints: folder of the stage's checkpoints.
        screen: for the bar and a line per epoch.
        record: called with the records of all finished epochs when one more is finished.
        stop: whether to save and stop now.
    """

    checkpoints: Path
    screen: Screen
    record: Callable[[tuple[dict[str, Any], ...]], None]
    stop: StopSignal


def starts_pretrained(config: Config) -> bool:
    """Whether the backbone starts from weights that were trained elsewhere: published ones, a file's or a run's."""
    model = config.model
    published = model.weights == "imagenet" and bool(find_backbone(model.backbone).releases)
    return published or model.weights_path is not None or config.init_from is not None


def keeps_pretrained_statistics(config: Config) -> bool:
    """Whether no batch norm of the backbone moves its statistics, whether or not its scale and bias train."""
    choice = config.model.batch_norm_statistics
    return starts_pretrained(config) if choice == "auto" else choice == "pretrained"


def step_program(
    config: Config, network: Network, stage: Stage, labels: Int32[np.ndarray, "examples"] | None = None
) -> StepProgram:
    """The program of the stage's steps; `labels` of the training images, for class weights, where steps are taken."""
    settings, optimizer = stage.settings, stage.settings.optimizer
    weighted = labels if config.balance == "class_weights" else None
    return StepProgram(
        network=network,
        start=stage.start,
        cut=stage.cut,
        inference_layers=inference_layers(
            network, stage.mask, pretrained_statistics=keeps_pretrained_statistics(config)
        ),
        optimizer=OptimizerSpec(optimizer.name, optimizer.momentum, optimizer.weight_decay, optimizer.clip_norm),
        ema=optimizer.ema,
        l1=settings.l1,
        l2=settings.l2,
        label_smoothing=settings.label_smoothing,
        loss=settings.loss,
        class_weights=() if weighted is None else class_weights(weighted, max(2, network.outputs)),
        augmentation=None if stage.trains_from_cache else stage.augmentation,
    )


def with_weights(variables: Variables, outcome: StageOutcome, which: str) -> Variables:
    """The variables with what a stage trained: those of its `best` or its `last` epoch."""
    weights = outcome.best if which == "best" else outcome.last
    return {
        "params": merge(variables["params"], weights.trainable),
        "batch_stats": merge(variables["batch_stats"], weights.batch_stats),
    }


@dataclass(frozen=True)
class ChosenEpoch:
    """The epoch of a run whose parameters are tested: the position of its stage, from 0, and its number there, from 1.

    `which` is `best` or `last` of the stage.
    """

    position: int
    epoch: int
    which: str


def ends_before(stage: Stage, outcomes: Sequence[StageOutcome]) -> bool:
    """Whether a run's schedule ends before `stage`, because the stages so far are good enough on validation."""
    limit = stage.settings.skip_from
    if limit is None or not outcomes:
        return False
    progress = outcomes[-1].progress
    accuracies = [
        record.get("validation_accuracy") for record in progress.history if record["epoch"] == progress.best_epoch
    ]
    return any(accuracy is not None and accuracy >= limit for accuracy in accuracies)


def chosen_epoch(outcomes: Sequence[StageOutcome], evaluate: str) -> ChosenEpoch:
    """The epoch whose parameters are tested.

    Args:
        outcomes: of all stages in their order, one or more.
        evaluate: `best` or `last` of the last stage, or `best_stage`: the best epoch of all stages by what they
            monitor, which is the same value in all; of equal ones the earlier. A stage whose epochs were all NaN is
            passed over; without validation it is the last stage's last epoch.
    """
    last = len(outcomes) - 1
    if evaluate == "last":
        return ChosenEpoch(last, outcomes[last].progress.epoch, "last")
    position = last
    if evaluate == "best_stage":
        values = {place: outcome.progress.best_value for place, outcome in enumerate(outcomes)}
        known = {place: value for place, value in values.items() if value is not None}
        position = min(known, key=known.__getitem__, default=last)
    return ChosenEpoch(position, outcomes[position].progress.best_epoch, "best")


def chosen_variables(starts: Sequence[Variables], outcomes: Sequence[StageOutcome], evaluate: str) -> Variables:
    """The variables that are tested; `starts` has those that each stage started from."""
    chosen = chosen_epoch(outcomes, evaluate)
    return with_weights(starts[chosen.position], outcomes[chosen.position], chosen.which)

"""Validation after an epoch: metrics of the validation split, and the value that chooses the best epoch."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Int, Int32

from vision_transfer.config import Config
from vision_transfer.config.own_parts import call_part
from vision_transfer.config.references import name_of
from vision_transfer.data.batches import training_batches
from vision_transfer.data.rows import TakenRows
from vision_transfer.errors import UserError
from vision_transfer.metrics.classification import Metrics, metrics
from vision_transfer.models.inference import infer
from vision_transfer.models.network import Network, Params
from vision_transfer.training.stage import Stage, TrainingData


def validate(
    config: Config,
    network: Network,
    stage: Stage,
    variables: dict[str, Params],
    data: TrainingData,
    mesh: Mesh,
    epoch: int,
) -> Metrics | None:
    """Metrics of the validation split after an epoch, numbered from 0; None where there is no such split."""
    if not len(data.validation_labels):
        return None
    rows = _validation_rows(config, stage, len(data.validation_labels), epoch)
    logits = infer(
        network,
        variables,
        TakenRows(data.validation_inputs, rows),
        mesh,
        batch_size=config.eval_batch_size,
        start=stage.evaluation_start,
    )
    labels = data.validation_labels[rows]
    return replace(metrics(logits, labels), own=own_metrics(config.metrics, logits, labels))


def own_metrics(
    references: Sequence[str], logits: Float[np.ndarray, "examples outputs"], labels: Int[np.ndarray, "examples"]
) -> dict[str, float | None]:
    """The value of each metric by the name of its function; None where it is not finite, as JSON has no NaN.

    Raises:
        UserError: a function fails, or returns no number.
    """
    found: dict[str, float | None] = {}
    for reference in references:
        value = call_part(reference, logits, labels)
        try:
            number = float(value)
        except (TypeError, ValueError) as error:
            raise UserError(f"{reference}: returned {type(value).__name__}; expected a number") from error
        found[name_of(reference)] = number if math.isfinite(number) else None
    return found


def monitored(monitor: str, validation: Metrics | None) -> list[float] | None:
    """The values that choose the best epoch, the lower the better, the first one that differs deciding.

    None without validation: each epoch is the best. NaN where the loss is: logits that are NaN count as class 0, so
    that their accuracy means nothing.
    """
    if validation is None:
        return None
    if math.isnan(validation.loss):
        return [math.nan]
    match monitor:
        case "validation_accuracy":
            return [-validation.accuracy]
        case "validation_accuracy_then_loss":
            return [-validation.accuracy, validation.loss]
        case _:
            return [validation.loss]


def _validation_rows(config: Config, stage: Stage, examples: int, epoch: int) -> Int32[np.ndarray, "rows"]:
    """All rows, or as many batches of a reshuffled stream as an epoch's validation takes, as Keras's generators do."""
    size, steps = config.eval_batch_size, stage.settings.validation_steps
    if steps is None:
        return np.arange(examples, dtype=np.int32)
    rows, weights = training_batches(config.seed, examples, size, size, start=epoch * steps, count=steps)
    return rows[weights > 0]

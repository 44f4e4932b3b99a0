"""What an epoch is judged by: metrics on the validation split, and the value that the best epoch is chosen by."""

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int32

from vision_transfer.data.batches import training_batches
from vision_transfer.freezing import merge
from vision_transfer.metrics.classification import Metrics, metrics
from vision_transfer.models.inference import TakenRows, infer
from vision_transfer.models.network import Params
from vision_transfer.train.stage_types import StageData, StagePlan, Weights


def validate(
    plan: StagePlan, frozen: dict[str, Params], data: StageData, mesh: Mesh, weights: Weights, epoch: int
) -> Metrics | None:
    """Metrics of the validation split after an epoch, numbered from 0; None where there is no such split."""
    if not len(data.validation_labels):
        return None
    variables = frozen | {
        "params": merge(frozen["params"], weights.trainable),
        "batch_stats": weights.batch_stats,
    }
    rows = _validation_rows(plan, len(data.validation_labels), epoch)
    logits = infer(
        plan.program.network,
        variables,
        TakenRows(data.validation_inputs, rows),
        mesh,
        batch_size=plan.eval_batch_size,
        start=plan.evaluation_start,
    )
    return metrics(logits, data.validation_labels[rows])


def monitored(plan: StagePlan, validation: Metrics | None) -> float | None:
    """What the best epoch is chosen by, the lower the better; without a validation split each epoch is the best yet."""
    if validation is None:
        return None
    return -validation.accuracy if plan.monitor == "validation_accuracy" else validation.loss


def _validation_rows(plan: StagePlan, examples: int, epoch: int) -> Int32[np.ndarray, "rows"]:
    """All rows, or as many batches of a reshuffled stream as an epoch's validation takes, as Keras's generators do."""
    if plan.validation_steps is None:
        return np.arange(examples, dtype=np.int32)
    size, steps = plan.eval_batch_size, plan.validation_steps
    rows, weights = training_batches(plan.seed, examples, size, size, start=epoch * steps, count=steps)
    return rows[weights > 0]

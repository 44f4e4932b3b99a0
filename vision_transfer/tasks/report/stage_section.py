"""Naming over-fitting in a stage's curves, by a rule that is stated beside it."""

from dataclasses import dataclass

import numpy as np

from vision_transfer.tasks.report.curves import StageCurves

# Epochs that must lie behind the lowest validation loss.
EPOCHS_AFTER = 3
# Smaller rises than this share of the lowest loss are within what epochs differ by anyway.
SMALLEST_RISE = 0.1

RULE = (
    f"A stage is said to over-fit if its smoothed validation loss ends more than {100 * SMALLEST_RISE:.0f} % above "
    f"its lowest value, {EPOCHS_AFTER} epochs or more after it, while its smoothed training loss fell. Single epochs, "
    "which go up and down by chance, do not decide."
)


@dataclass(frozen=True)
class Overfitting:
    """A stage that over-fits; all losses are smoothed.

    Attributes:
        epoch: of the lowest validation loss, after which it began.
        lowest: that validation loss.
        final: validation loss of the last epoch.
        train_then: training loss of that epoch.
        train_final: training loss of the last epoch.
    """

    epoch: int
    lowest: float
    final: float
    train_then: float
    train_final: float


def overfitting(stage: StageCurves) -> Overfitting | None:
    """What `RULE` finds in a stage's curves, or None."""
    train, validation = stage.curves["train_loss"].smoothed, stage.curves["validation_loss"].smoothed
    if not np.isfinite(validation).any():
        return None
    best = int(np.nanargmin(validation))
    found = Overfitting(
        epoch=int(stage.epochs[best]),
        lowest=float(validation[best]),
        final=float(validation[-1]),
        train_then=float(train[best]),
        train_final=float(train[-1]),
    )
    # comparisons with NaN, which a loss may be, are false
    rises = found.final > (1 + SMALLEST_RISE) * found.lowest
    falls = found.train_final < found.train_then
    return found if len(validation) - 1 - best >= EPOCHS_AFTER and rises and falls else None

"""Which of the parameters that a run trained are tested."""

from collections.abc import Sequence
from dataclasses import dataclass

from vision_transfer.models.network import Params
from vision_transfer.train.stage_types import StageOutcome, with_weights


@dataclass(frozen=True)
class ChosenEpoch:
    """An epoch of a run.

    Attributes:
        position: of its stage in the run, from 0.
        epoch: in that stage, from 1.
        which: `best` or `last` of the stage.
    """

    position: int
    epoch: int
    which: str


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


def chosen_variables(
    starts: Sequence[dict[str, Params]], outcomes: Sequence[StageOutcome], evaluate: str
) -> dict[str, Params]:
    """`params` and `batch_stats` that are tested; `starts` has those that each stage started from."""
    chosen = chosen_epoch(outcomes, evaluate)
    return with_weights(starts[chosen.position], outcomes[chosen.position], chosen.which)

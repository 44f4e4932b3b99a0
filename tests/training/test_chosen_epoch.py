"""Which parameters are tested: of the last stage, or of the stage that did best on validation."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from vision_transfer.config import checked, default_config, stage, with_stages
from vision_transfer.errors import UserError
from vision_transfer.models.layers import Conv, Dense, Flatten
from vision_transfer.models.network import Network
from vision_transfer.runs.build import resolve_stages
from vision_transfer.training.stage import Progress, StageOutcome, Weights, chosen_epoch, chosen_variables, ends_before


def _outcome(*values, best, last):
    """A stage whose epochs had these monitored values, and that trained `w` to `best` and `last`."""
    known = [value for value in values if value is not None]
    epoch = values.index(min(known)) + 1 if known else len(values)
    progress = Progress(epoch=len(values), best_epoch=epoch, best_value=[min(known)] if known else None)
    weights = [Weights({"head": {"w": np.float32(value)}}, {}) for value in (best, last)]
    return StageOutcome(*weights, progress)


HEAD = _outcome(0.5, 0.2, 0.3, best=1, last=2)
BETTER = _outcome(0.4, 0.1, best=3, last=4)
WORSE = _outcome(0.4, 0.25, 0.3, best=5, last=6)
EQUAL = _outcome(0.2, 0.3, best=7, last=8)
BLIND = _outcome(None, None, best=9, last=9)


@pytest.mark.parametrize(
    ("outcomes", "evaluate", "position", "epoch", "which"),
    [
        ([HEAD, WORSE], "best", 1, 2, "best"),
        ([HEAD, WORSE], "last", 1, 3, "last"),
        ([HEAD, WORSE], "best_stage", 0, 2, "best"),
        ([HEAD, BETTER], "best_stage", 1, 2, "best"),
        ([HEAD, BETTER, WORSE], "best_stage", 1, 2, "best"),
        ([HEAD, EQUAL], "best_stage", 0, 2, "best"),
        ([HEAD], "best_stage", 0, 2, "best"),
        ([BLIND, BLIND], "best_stage", 1, 2, "best"),
        ([HEAD, BLIND], "best_stage", 0, 2, "best"),
        ([BLIND, WORSE], "best_stage", 1, 2, "best"),
    ],
)
def test_the_epoch_that_is_tested(outcomes, evaluate, position, epoch, which):
    chosen = chosen_epoch(outcomes, evaluate)
    assert (chosen.position, chosen.epoch, chosen.which) == (position, epoch, which)


def test_an_earlier_stage_is_tested_with_what_it_started_from():
    starts = [
        {"params": {"base": {"w": np.float32(base)}, "head": {"w": np.float32(0)}}, "batch_stats": {}}
        for base in (10, 20)
    ]
    found = chosen_variables(starts, [HEAD, WORSE], "best_stage")
    assert jax.tree.map(float, found["params"]) == {"base": {"w": 10.0}, "head": {"w": 1.0}}


def test_stages_that_monitor_different_values_cannot_be_compared():
    config = default_config()
    config.evaluate = "best_stage"
    with_stages(config, head=stage(epochs=1), more=stage(epochs=1, monitor="validation_accuracy"))
    with pytest.raises(UserError, match="best_stage compares stages that monitor validation_accuracy and validation_l"):
        checked(config)
    config.evaluate = "best"
    checked(config)


@pytest.mark.parametrize(("limit", "ends"), [(None, False), (0.9, True), (0.91, False), (0.95, False)])
def test_a_schedule_ends_where_the_best_epoch_is_good_enough(limit, ends):
    """The accuracy is that of the best epoch by the monitored loss, not the highest."""
    accuracies = [0.8, 0.9, 0.95]
    history = tuple({"epoch": place, "validation_accuracy": value} for place, value in enumerate(accuracies, 1))
    head = replace(HEAD, progress=replace(HEAD.progress, history=history))
    config = default_config()
    with_stages(config, head=stage(epochs=3), tune=stage(freeze="none", epochs=1, skip_from=limit))
    network = Network((Conv("conv", 1),), (Flatten("flat"), Dense("logits", 1)), (3, 3, 1))
    _, tune = resolve_stages(checked(config), network)
    assert ends_before(tune, [head]) is ends
    assert not ends_before(tune, [])

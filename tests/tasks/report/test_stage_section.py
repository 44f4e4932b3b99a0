"""Over-fitting is reported where the rule finds it, and only there."""

import numpy as np
import pytest

from vision_transfer.tasks.report.curves import stage_curves
from vision_transfer.tasks.report.stage_section import EPOCHS_AFTER, overfits_from


@pytest.fixture
def verdict(make_epoch):
    def of(train, validation):
        records = [
            make_epoch("head", place + 1, *pair) for place, pair in enumerate(zip(train, validation, strict=True))
        ]
        (curves,) = stage_curves(records)
        return overfits_from(curves)

    return of


FALLING = np.linspace(2, 0.1, 12)


def test_validation_that_rises_while_training_falls(verdict):
    place = verdict(FALLING, np.concatenate([np.linspace(1, 0.5, 5), np.linspace(0.6, 2, 7)]))
    assert place is not None and 4 <= place < 12 - EPOCHS_AFTER


@pytest.mark.parametrize(
    ("train", "validation"),
    [
        (FALLING, np.linspace(1, 0.3, 12)),
        (FALLING, np.full(12, 0.4)),
        (FALLING, [*np.linspace(1, 0.3, 11), 0.9]),
        (FALLING, [*np.full(11, 0.5), 0.2]),
        (np.linspace(0.1, 2, 12), np.linspace(0.5, 2, 12)),
        (FALLING[:3], [0.5, 1.0, 2.0]),
        (FALLING, [None] * 12),
        (FALLING, np.full(12, np.nan)),
    ],
    ids=["still falling", "flat", "one bad epoch", "one lucky epoch", "diverging", "too short", "none", "nan"],
)
def test_curves_without_overfitting(verdict, train, validation):
    assert verdict(train, validation) is None

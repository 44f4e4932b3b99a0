"""A stage with augmentation that is stopped inside an epoch ends bit for bit as if nothing had happened.

Fresh variants are drawn from (seed, epoch, image), a bank's from its own seed, inside the step or cached as features;
none of them from what the process has done so far.
"""

import math
import signal
from contextlib import contextmanager
from dataclasses import replace

import jax
import numpy as np
import pytest

from vision_transfer.config import Config
from vision_transfer.config.schema import AugmentConfig, CheckpointConfig
from vision_transfer.data.augmentation.augment import BankRows
from vision_transfer.runtime.preemption import Stopped, StopSignal
from vision_transfer.training import dispatch
from vision_transfer.training.device_feed import TrainingRows
from vision_transfer.training.loop import train_stage
from vision_transfer.training.stage import Surroundings, TrainingData

TRAIN, VALIDATION, BATCH, STEPS, EPOCHS, BANK = 10, 4, 4, 3, 3, 2
OPERATIONS = AugmentConfig(preset="keras_layers", flip="horizontal", rotation=0.1, zoom=0.2)
KINDS = {"fresh": 0, "bank": BANK, "cached bank": BANK}


class StoppingScreen:
    """Asks to stop after a number of steps."""

    def __init__(self, after, stop):
        self.left, self.stop = after, stop

    def say(self, message="", style=None):
        pass

    @contextmanager
    def bar(self, title, total, *_, **__):
        def advance(done, note=""):
            self.left -= done
            if self.left <= 0:
                self.stop.received = signal.SIGTERM

        yield advance


@pytest.fixture(scope="module", params=KINDS)
def train(request, small_network, small_data, stage_of, variables_of, mesh):
    """Trains a stage in a folder, stopped after some steps if asked, with one kind of augmentation."""
    augmentation = replace(OPERATIONS, bank=KINDS[request.param], bank_seed=3)
    images, labels = small_data(TRAIN + VALIDATION)
    ids = np.arange(TRAIN, dtype=np.uint32) + 1000
    rows, in_step = TrainingRows(images[:TRAIN], labels[:TRAIN], ids), augmentation
    if request.param == "cached bank":
        bank = [BankRows(images[:TRAIN], ids, augmentation, variant)[np.arange(TRAIN)] for variant in range(BANK)]
        rows, in_step = (
            TrainingRows(np.concatenate(bank), np.tile(labels[:TRAIN], BANK), np.tile(ids, BANK), BANK),
            None,
        )
    data = TrainingData(rows, images[TRAIN:], labels[TRAIN:])
    network = small_network(dropout=0.5)
    stage = stage_of(
        network,
        "all",
        name="head",
        epochs=EPOCHS,
        steps_per_epoch=STEPS,
        label_smoothing=0.1,
        optimizer={"lr": 1e-2},
        augmentation=in_step,
    )
    config = Config(
        seed=7, batch_size=BATCH, eval_batch_size=BATCH, checkpoint=CheckpointConfig(every_seconds=math.inf)
    )
    variables = variables_of(network)

    def run(folder, stop_after=math.inf):
        stop = StopSignal()
        around = Surroundings(folder, StoppingScreen(stop_after, stop), lambda history: None, stop)
        return train_stage(config, network, stage, variables, lambda: data, mesh, around)

    return run


def test_a_stop_inside_an_epoch_changes_no_bit(train, tmp_path, monkeypatch):
    monkeypatch.setattr(dispatch, "SECONDS_PER_DISPATCH", 0)
    undisturbed = train(tmp_path / "undisturbed")
    # After the first step of the first epoch; then the second of the second, where a bank uses its other variant;
    # then the first of the third.
    for after in (1, STEPS + 1, STEPS - 1):
        with pytest.raises(Stopped) as stopped:
            train(tmp_path / "stopped", stop_after=after)
        assert "step" in str(stopped.value)
    resumed = train(tmp_path / "stopped")
    ends = [jax.tree.leaves((outcome.best, outcome.last)) for outcome in (resumed, undisturbed)]
    for leaf, other in zip(*ends, strict=True):
        np.testing.assert_array_equal(leaf, other)
    losses = [[record["train_loss"] for record in outcome.progress.history] for outcome in (resumed, undisturbed)]
    assert losses[0] == losses[1]
    assert len(set(losses[0])) == EPOCHS

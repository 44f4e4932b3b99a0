"""The loop of a stage: best and last, patience, exact resumption, failures, one program for all chunks."""

import gc
import math
import signal
from contextlib import contextmanager

import jax
import numpy as np
import pytest

from vision_transfer.config import Config
from vision_transfer.config.fields import STAGE_FIELDS
from vision_transfer.config.schema import CheckpointConfig
from vision_transfer.errors import UserError
from vision_transfer.metrics.classification import Metrics
from vision_transfer.runtime.preemption import Stopped, StopSignal
from vision_transfer.training import device_feed, dispatch, loop
from vision_transfer.training.device_feed import TrainingRows
from vision_transfer.training.loop import train_stage
from vision_transfer.training.stage import Surroundings, TrainingData
from vision_transfer.training.step import run_steps
from vision_transfer.training.validation import monitored

# 22 examples in batches of 4: six steps, the last of two examples.
TRAIN, VALIDATION, BATCH, STEPS, EPOCHS = 22, 10, 4, 6, 3
RATE = 3e-3
# Two steps of the small images.
SMALL_CHUNK_BYTES = 2 * BATCH * 8 * 8 * 3


class WatchedScreen:
    """Counts the steps of the bars, and does something after a number of them."""

    def __init__(self, after=math.inf, then=None):
        self.after, self.then, self.steps, self.said = after, then, 0, []

    def say(self, message="", style=None):
        self.said.append(str(message))

    @contextmanager
    def bar(self, title, total, unit="images", images_each=None):
        def advance(done, note=""):
            self.steps += done
            if self.steps >= self.after and self.then is not None:
                then, self.then = self.then, None
                then()

        yield advance


class Killed(BaseException):
    """The process ends here."""


def killed():
    raise Killed


@pytest.fixture(scope="module")
def network(small_network):
    """With all that has a state: batch norm and dropout; moments and an average come with the stage."""
    return small_network(dropout=0.5, batch_norm=True)


@pytest.fixture(scope="module")
def data(small_data):
    images, labels = small_data(TRAIN + VALIDATION)
    ids = np.arange(TRAIN, dtype=np.uint32) + 1000
    return TrainingData(TrainingRows(images[:TRAIN], labels[:TRAIN], ids), images[TRAIN:], labels[TRAIN:])


@pytest.fixture(scope="module")
def train(network, stage_of, variables_of, data, mesh):
    """Trains the stage in a folder; what is not given is as in the uninterrupted run."""
    variables = variables_of(network)

    def run(
        folder,
        *,
        screen=None,
        stop=None,
        record=lambda history: None,
        data=lambda: data,
        checkpoint_seconds=math.inf,
        epochs=EPOCHS,
        **settings,
    ):
        optimizer = {"lr": RATE, "ema": 0.5}
        stage = stage_of(
            network, "below:conv2", name="top", epochs=epochs, steps_per_epoch=STEPS, optimizer=optimizer, **settings
        )
        checkpoint = CheckpointConfig(every_seconds=checkpoint_seconds)
        config = Config(seed=7, batch_size=BATCH, eval_batch_size=4, checkpoint=checkpoint)
        around = Surroundings(folder, screen or WatchedScreen(), record, stop or StopSignal())
        return train_stage(config, network, stage, variables, data, mesh, around)

    return run


@pytest.fixture(scope="module")
def uninterrupted(train, tmp_path_factory):
    """The outcome of the stage in one go, and how many programs its steps and then those of others compiled."""
    run_steps.clear_cache()
    return train(tmp_path_factory.mktemp("uninterrupted")), run_steps._cache_size()


def assert_same_bits(found, expected):
    assert jax.tree.structure((found.best, found.last)) == jax.tree.structure((expected.best, expected.last))
    for leaf, other in zip(
        jax.tree.leaves((found.best, found.last)), jax.tree.leaves((expected.best, expected.last)), strict=True
    ):
        np.testing.assert_array_equal(leaf, other)
    assert without_times(found.progress) == without_times(expected.progress)


def without_times(progress):
    history = [{key: value for key, value in record.items() if key != "seconds"} for record in progress.history]
    return history, progress.epoch, progress.step, progress.best_epoch, progress.best_value, progress.finished


def test_a_stage_learns_and_says_what_it_did(uninterrupted):
    outcome, _ = uninterrupted
    history = outcome.progress.history
    assert [record["epoch"] for record in history] == [1, 2, 3]
    assert history[-1]["train_loss"] < history[0]["train_loss"]
    assert all(math.isfinite(value) for record in history for value in record.values() if isinstance(value, float))
    assert outcome.progress.finished
    assert outcome.progress.best_value == [min(record["validation_loss"] for record in history)]


@pytest.mark.accelerator
def test_all_chunks_are_one_program(uninterrupted, train, tmp_path, monkeypatch):
    _, programs = uninterrupted
    assert programs == 1
    monkeypatch.setattr(dispatch, "SECONDS_PER_DISPATCH", 1e9)
    train(tmp_path)
    assert run_steps._cache_size() == programs


def test_chunks_change_no_bit(uninterrupted, train, tmp_path, monkeypatch):
    monkeypatch.setattr(dispatch, "SECONDS_PER_DISPATCH", 0)
    assert_same_bits(train(tmp_path / "single"), uninterrupted[0])
    monkeypatch.setattr(dispatch, "SECONDS_PER_DISPATCH", 1e9)
    assert_same_bits(train(tmp_path / "long"), uninterrupted[0])


# Inside the first epoch, at its end (before validation), one and some steps into the second, in the last.
@pytest.mark.accelerator
@pytest.mark.parametrize("after", [1, STEPS, STEPS + 1, 2 * STEPS - 2, 3 * STEPS])
def test_a_stopped_stage_goes_on_bit_for_bit(uninterrupted, train, tmp_path, after):
    stop = StopSignal()
    screen = WatchedScreen(after, lambda: setattr(stop, "received", signal.SIGTERM))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dispatch, "SECONDS_PER_DISPATCH", 0)
        with pytest.raises(Stopped) as stopped:
            train(tmp_path, screen=screen, stop=stop)
    assert stopped.value.signal_number == signal.SIGTERM
    assert "'top'" in str(stopped.value)
    rest = WatchedScreen()
    assert_same_bits(train(tmp_path, screen=rest), uninterrupted[0])
    # Nothing that was done is done again; the bar of the epoch under way starts where it stood.
    assert rest.steps == EPOCHS * STEPS - (after - 1) // STEPS * STEPS


@pytest.mark.parametrize("after", [2, STEPS, STEPS + 3])
@pytest.mark.parametrize("checkpoint_seconds", [0, math.inf])
def test_a_killed_stage_goes_on_bit_for_bit(uninterrupted, train, tmp_path, monkeypatch, after, checkpoint_seconds):
    monkeypatch.setattr(dispatch, "SECONDS_PER_DISPATCH", 0)
    with pytest.raises(Killed):
        train(tmp_path, screen=WatchedScreen(after, killed), checkpoint_seconds=checkpoint_seconds)
    assert_same_bits(train(tmp_path), uninterrupted[0])


def test_a_stage_that_is_killed_behind_an_epoch_goes_on_bit_for_bit(uninterrupted, train, tmp_path):
    def kill_after_two(history):
        if len(history) == 2:
            killed()

    with pytest.raises(Killed):
        train(tmp_path, record=kill_after_two, checkpoint_seconds=0)
    records = []
    rest = WatchedScreen()
    assert_same_bits(train(tmp_path, screen=rest, record=records.append), uninterrupted[0])
    assert rest.steps == STEPS
    assert len(records[-1]) == EPOCHS


@pytest.mark.accelerator
def test_a_finished_stage_leaves_nothing_on_the_device(train, mesh, tmp_path):
    device = mesh.devices.flat[0]

    def bytes_held():
        gc.collect()
        return sum(array.nbytes for array in jax.live_arrays() if device in array.devices())

    train(tmp_path / "first")  # what JAX and the fixtures keep is there from now on
    before = bytes_held()
    outcome = train(tmp_path / "second")
    assert bytes_held() <= before
    assert outcome.progress.finished


def test_a_finished_stage_is_found_and_not_written_again(uninterrupted, train, tmp_path):
    def manifests():
        return {file: file.stat().st_mtime_ns for file in tmp_path.rglob("manifest.json")}

    train(tmp_path)
    written = manifests()
    assert_same_bits(train(tmp_path, data=killed), uninterrupted[0])
    assert manifests() == written and {file.parts[-3] for file in written} == {"best", "last"}


@pytest.fixture(scope="module")
def streamed(train, tmp_path_factory):
    """The outcome of the stage with its rows on the host."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device_feed, "CHUNK_BYTES", SMALL_CHUNK_BYTES)
        return train(tmp_path_factory.mktemp("streamed"))


@pytest.fixture
def small_chunks(monkeypatch, data, mesh):
    monkeypatch.setattr(device_feed, "CHUNK_BYTES", SMALL_CHUNK_BYTES)
    assert device_feed.placement(data.train, mesh, splittable=True) == "streamed"


def test_streamed_rows_give_the_same_training(uninterrupted, streamed):
    expected, _ = uninterrupted
    for leaf, other in zip(jax.tree.leaves(streamed.last), jax.tree.leaves(expected.last), strict=True):
        np.testing.assert_allclose(leaf, other, atol=1e-5)
    losses = [outcome.progress.history[-1]["train_loss"] for outcome in (streamed, expected)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("after", [3, STEPS])
def test_a_stopped_streamed_stage_goes_on_bit_for_bit(streamed, train, tmp_path, after):
    stop = StopSignal()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dispatch, "SECONDS_PER_DISPATCH", 0)
        with pytest.raises(Stopped):
            train(tmp_path, screen=WatchedScreen(after, lambda: setattr(stop, "received", signal.SIGINT)), stop=stop)
    assert_same_bits(train(tmp_path), streamed)


@pytest.mark.usefixtures("small_chunks")
def test_streamed_rows_may_be_on_disk(streamed, data, train, tmp_path):
    np.save(tmp_path / "rows.npy", data.train.inputs)
    rows = TrainingRows(np.load(tmp_path / "rows.npy", mmap_mode="r"), data.train.labels, data.train.ids)
    outcome = train(tmp_path / "stage", data=lambda: TrainingData(rows, data.validation_inputs, data.validation_labels))
    assert_same_bits(outcome, streamed)


@pytest.fixture
def scripted(train, tmp_path, monkeypatch):
    """Trains with validation results that are given."""

    def run(losses, accuracies=None, folder="stage", **changes):
        results = map(Metrics, losses, accuracies or [0.5] * len(losses))
        monkeypatch.setattr(loop, "validate", lambda *_: next(results))
        return train(tmp_path / folder, epochs=len(losses), **changes)

    return run


NAN = math.nan


@pytest.mark.parametrize(
    ("losses", "best_epoch", "best_value"),
    [
        ([0.5, 0.4, 0.4], 2, [0.4]),
        ([0.4, 0.5, 0.4], 1, [0.4]),
        ([NAN, 0.5, NAN], 2, [0.5]),
        ([0.5, NAN, 0.4], 3, [0.4]),
        ([NAN, NAN], 0, None),
    ],
)
def test_the_best_is_strictly_less_and_never_nan(scripted, losses, best_epoch, best_value):
    outcome = scripted(losses)
    assert (outcome.progress.best_epoch, outcome.progress.best_value) == (best_epoch, best_value)


def test_the_highest_accuracy_is_best(scripted):
    assert scripted([0.1, 0.2, 0.3], [0.7, 0.8, 0.8], monitor="validation_accuracy").progress.best_epoch == 2


def test_an_epoch_whose_loss_is_not_a_number_is_not_the_best_by_accuracy():
    """Logits that are NaN all count as class 0, which may be most of the images."""
    for monitor in STAGE_FIELDS["monitor"].choices:
        (value,) = monitored(monitor, Metrics(NAN, 0.9))
        assert math.isnan(value)


@pytest.mark.parametrize(("losses", "best_epoch"), [([0.1, 0.3, 0.2], 3), ([0.1, 0.2, 0.2], 2), ([0.1, NAN, 0.2], 3)])
def test_of_epochs_with_the_highest_accuracy_the_lowest_loss_is_best(scripted, losses, best_epoch):
    monitor = "validation_accuracy_then_loss"
    assert scripted(losses, [0.7, 0.8, 0.8], monitor=monitor).progress.best_epoch == best_epoch


def test_the_best_is_a_copy_that_later_steps_leave_alone(scripted):
    """Its arrays are those that the stage ended with when it ended there."""
    short = scripted([0.5], folder="short")
    long = scripted([0.5, 0.6, 0.7], folder="long")
    for leaf, other in zip(jax.tree.leaves(long.best), jax.tree.leaves(short.last), strict=True):
        np.testing.assert_array_equal(leaf, other)
    assert any(
        not np.array_equal(leaf, other)
        for leaf, other in zip(jax.tree.leaves(long.best), jax.tree.leaves(long.last), strict=True)
    )


@pytest.mark.parametrize(
    ("losses", "patience", "epochs"),
    [([3, 2, 1, 0.5], 1, 4), ([1, 2, 3, 0.5], 2, 3), ([1, 2, 0.9, 1, 1, 0.1], 2, 5), ([NAN, NAN, NAN], 2, 2)],
)
def test_patience_counts_epochs_without_a_better_value(scripted, losses, patience, epochs):
    progress = scripted(losses, patience=patience).progress
    assert progress.epoch == epochs
    assert progress.finished


@pytest.mark.parametrize(
    ("bad", "checkpoint_seconds", "named"),
    [(3, math.inf, "no checkpoint"), (STEPS + 2, 0, "after epoch 1")],
)
def test_a_loss_that_is_not_finite_stops_the_run(train, tmp_path, monkeypatch, bad, checkpoint_seconds, named):
    rates = np.full(EPOCHS * STEPS, RATE, np.float32)
    # The step before ruins the parameters.
    rates[bad - 1] = 1e38
    monkeypatch.setattr(loop, "learning_rates", lambda *_: rates)
    with pytest.raises(UserError) as error:
        train(tmp_path, checkpoint_seconds=checkpoint_seconds)
    message = str(error.value)
    assert f"step {bad} " in message
    assert f"epoch {bad // STEPS + 1}" in message
    assert named in message
    assert "config.stages.top.optimizer.lr" in message
    # What the message names is the state before the failure: it is found and leads to the same.
    with pytest.raises(UserError, match=f"step {bad} "):
        train(tmp_path, checkpoint_seconds=checkpoint_seconds)


def test_nothing_half_written_stays(train, tmp_path):
    for name in (loop.LAST, loop.BEST):
        (tmp_path / name / "000000006.writing-1234").mkdir(parents=True)
    train(tmp_path, epochs=1)
    assert sorted(path.name for path in tmp_path.rglob("*.writing-*")) == []

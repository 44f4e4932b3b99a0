"""Which layer a run starts from where the disk does not hold the features of the deepest; decided once, and kept."""

import json
from dataclasses import replace

import numpy as np
import pytest

from vision_transfer.config import checked, default_config, stage, with_stages
from vision_transfer.feature_cache import budget, extraction
from vision_transfer.runs.cache_plan import with_cached_layers
from vision_transfer.runs.prepare import RunOptions, prepare
from vision_transfer.runs.stage_inputs import split_inputs, training_requests
from vision_transfer.tasks.train import task
from vision_transfer.training import loop, validation

TRAINING = 100
# Float32 rows of 28×28 digits behind the first and the second pool of the MNIST convnet.
POOL1_BYTES, POOL2_BYTES = 4 * 13 * 13 * 32, 4 * 5 * 5 * 64
# As a bank of cached variants and fresh ones agree: only rounding differs.
AGREEMENT = 5e-5


def small_config(budget_gb=None, lr=1e-3, freeze="below:conv3", **augment):
    config = default_config()
    config.log.report = False
    config.dataset.name = "embedded"
    config.dataset.image_size = 28
    config.dataset.channels = 1
    config.dataset.train_examples = TRAINING
    config.model.backbone = "mnist_convnet"
    config.model.weights = "random"
    config.model.hidden = ()
    config.features.budget_gb = budget_gb
    config.augment.update(augment)
    return with_stages(config, top=stage(freeze=freeze, epochs=2, optimizer={"name": "adam", "lr": lr}))


@pytest.fixture
def feed(screen, tmp_path):
    """A config's data and network, and what makes inputs of them."""

    def build(config, folder=None):
        return prepare(checked(config), RunOptions(folder, tmp_path), screen)

    return build


@pytest.fixture
def settle(feed, tmp_path):
    """The layers that a config's stages start from in a run folder of its own."""

    def start(config, folder="run"):
        (tmp_path / folder).mkdir(exist_ok=True)
        return [(stage.cached, stage.start) for stage in with_cached_layers(feed(config, tmp_path / folder)).stages]

    return start


def variables_of(run):
    return run.initial_variables()


def said(screen):
    return screen.console.file.getvalue()


def rows_of(run):
    dataset = run.dataset
    return len(dataset.train) + len(dataset.validation) + len(dataset.test)


def test_what_fits_is_cached_without_a_word(settle, screen):
    before = said(screen)
    assert settle(small_config()) == [("pool2", "conv3")]
    assert "starts from" not in said(screen).removeprefix(before)


@pytest.mark.parametrize(("short", "start"), [(0, ("pool2", "conv3")), (1, (None, None))])
def test_what_is_one_byte_too_much_is_not_cached_and_said(settle, feed, screen, short, start):
    needed = rows_of(feed(small_config())) * POOL2_BYTES
    assert settle(small_config(budget_gb=(needed - short) / 1e9)) == [start]
    assert ("Stage top starts from the images: with the features of pool2" in said(screen)) == bool(short)


def test_every_variant_of_a_bank_counts(settle, feed, screen):
    needed = (rows_of(feed(small_config())) + 2 * TRAINING) * POOL2_BYTES
    bank = {"preset": "keras_layers", "rotation": 0.1, "bank": 3}
    assert settle(small_config(needed / 1e9, **bank)) == [("pool2", "conv3")]
    assert settle(small_config((needed - 1) / 1e9, **bank), "other") == [(None, None)]


def test_bfloat16_takes_half_of_the_budget(settle, feed):
    config = small_config(rows_of(feed(small_config())) * POOL2_BYTES / 2 / 1e9)
    config.features.dtype = "bfloat16"
    assert settle(config) == [("pool2", "conv3")]


def test_stages_share_the_budget(settle, feed):
    rows = rows_of(feed(small_config()))
    test_rows = len(feed(small_config()).dataset.test)
    # The test split is only asked for behind the last stage.
    both = (rows - test_rows) * POOL2_BYTES + rows * POOL1_BYTES
    for allowed, second in ((both, "pool1"), (both - 1, None)):
        config = small_config(allowed / 1e9)
        config = with_stages(config, top=stage(freeze="below:conv3"), more=stage(freeze="below:conv2"))
        assert [cached for cached, _ in settle(config, second or "less")] == ["pool2", second]


def test_without_a_budget_half_of_the_free_disk_may_be_used(settle, feed, monkeypatch, screen):
    needed = rows_of(feed(small_config())) * POOL2_BYTES
    for free, start in ((2 * needed + 1, "pool2"), (2 * needed - 2, None)):
        monkeypatch.setattr(budget.shutil, "disk_usage", lambda _, free=free: type("usage", (), {"free": free}))
        assert settle(small_config(), f"run {start}")[0][0] == start
    assert "half of the" in said(screen)


def test_rows_that_are_there_cost_nothing_also_behind_an_earlier_pool(settle, feed, screen):
    run = feed(small_config(freeze="below:conv2"))
    variables, dataset, first = variables_of(run), run.dataset, run.stages[0]
    assert first.cached == "pool1"
    for split in (dataset.train, dataset.validation, dataset.test):
        split_inputs(run, first, variables, split)
    assert settle(small_config(budget_gb=0)) == [("pool1", "conv2")]
    assert "Stage top starts from cached pool1" in said(screen)
    deepest = replace(first, cached="pool2")
    for split in (dataset.train, dataset.validation, dataset.test):
        split_inputs(run, deepest, variables, split)
    assert settle(small_config(budget_gb=0), "later") == [("pool2", "conv3")]
    assert settle(small_config()) == [("pool1", "conv2")]  # as it was recorded


def test_rows_of_weights_that_a_stage_trains_first_are_not_there(settle, feed):
    run = feed(small_config())
    for split in (run.dataset.train, run.dataset.validation, run.dataset.test):
        split_inputs(run, run.stages[0], variables_of(run), split)
    config = small_config(budget_gb=0)
    assert settle(config) == [("pool2", "conv3")]
    config = with_stages(config, whole=stage(freeze="none"), top=stage(freeze="below:conv3"))
    assert settle(config, "trained") == [(None, None), (None, None)]


def test_there_is_a_request_for_each_variant(feed):
    run = feed(small_config(preset="keras_layers", rotation=0.1, bank=3))
    requests = training_requests(run, run.stages[0], variables_of(run))
    assert [request.prefix.variant for request in requests] == [0, 1, 2]
    assert len({request.prefix.store("pool2") for request in requests}) == 3


@pytest.fixture
def seen(monkeypatch):
    """What a run computes: images through the prefix, and where steps and validation start."""
    record = {"prefix": [], "steps": set(), "validation": set()}
    compute, steps, infer = extraction.infer_batches, loop.run_steps, validation.infer

    def spy_prefix(network, variables, inputs, mesh, **options):
        record["prefix"].append(inputs.shape[0])
        return compute(network, variables, inputs, mesh, **options)

    def spy_steps(state, chunk, constants, *, program, **options):
        record["steps"].add((program.start, *constants.frozen["params"], chunk.examples.inputs.shape[1:]))
        return steps(state, chunk, constants, program=program, **options)

    def spy_validation(*arguments, start, **options):
        record["validation"].add(start)
        return infer(*arguments, start=start, **options)

    monkeypatch.setattr(extraction, "infer_batches", spy_prefix)
    monkeypatch.setattr(loop, "run_steps", spy_steps)
    monkeypatch.setattr(validation, "infer", spy_validation)
    return record


def test_a_cached_prefix_is_computed_once_and_never_in_a_step(feed, seen, tmp_path, screen):
    """And a run without room for it gives the same numbers from the images, also when there is room later."""
    options = RunOptions(tmp_path / "cached", tmp_path)
    cached = task.train(checked(small_config()), options, screen)
    rows = rows_of(feed(small_config()))
    assert sum(seen["prefix"]) == rows
    assert seen["steps"] == {("conv3", (5, 5, 64))}
    assert seen["validation"] == {"conv3"}
    again = RunOptions(tmp_path / "again", tmp_path)
    task.train(checked(small_config(lr=1e-2)), again, screen)
    assert sum(seen["prefix"]) == rows

    for record in seen.values():
        record.clear()
    without = RunOptions(tmp_path / "without", tmp_path / "other")
    images = task.train(checked(small_config(budget_gb=0)), without, screen)
    assert seen["prefix"] == []
    assert {start for start, *_ in seen["steps"]} == {None}
    assert not (tmp_path / "other" / "features").exists()
    losses = [[line["validation_loss"] for line in metrics(folder)] for folder in (cached, images)]
    np.testing.assert_allclose(*losses, rtol=AGREEMENT)

    images.result_file.unlink()
    images.predictions_file.unlink()
    task.train(checked(small_config()), without, screen)
    result = images.result()
    assert result is not None
    assert result["stages"][0]["cached"] is None
    assert seen["prefix"] == []


def test_fresh_variants_are_computed_in_the_step_and_what_is_not_augmented_once(feed, seen, tmp_path, screen):
    """Features of validation and test alone, with the numbers of validation from the images."""
    fresh = {"preset": "keras_layers", "rotation": 0.1}
    cached = task.train(checked(small_config(**fresh)), RunOptions(tmp_path / "cached", tmp_path), screen)
    dataset = feed(small_config()).dataset
    assert sum(seen["prefix"]) == len(dataset.validation) + len(dataset.test)
    assert {start for start, *_ in seen["steps"]} == {None}
    assert seen["validation"] == {"conv3"}
    assert "from the images, validation from cached pool2" in said(screen)
    for record in seen.values():
        record.clear()
    config = small_config(**fresh)
    config.features.cache = False
    images = task.train(checked(config), RunOptions(tmp_path / "images", tmp_path), screen)
    assert (seen["prefix"], seen["validation"]) == ([], {None})
    first, second = metrics(cached), metrics(images)
    assert [line["train_loss"] for line in first] == [line["train_loss"] for line in second]
    losses = [[line["validation_loss"] for line in lines] for lines in (first, second)]
    np.testing.assert_allclose(*losses, rtol=AGREEMENT)
    accuracies = [result["test"]["accuracy"] for result in (cached.result(), images.result()) if result is not None]
    assert accuracies[0] == accuracies[1]


def test_a_stage_that_does_not_augment_trains_from_the_cache_before_one_that_does(feed, seen, tmp_path, screen):
    """Its numbers are those of a config without augmentation."""
    fresh = {"preset": "keras_layers", "rotation": 0.1}
    plain = stage(freeze="below:conv3", epochs=1, augment=False)
    config = checked(with_stages(small_config(), plain=plain))
    first = metrics(task.train(config, RunOptions(tmp_path / "first", tmp_path), screen))
    for record in seen.values():
        record.clear()
    stages = {"plain": plain, "varied": stage(freeze="below:conv3", epochs=1)}
    config = with_stages(small_config(**fresh), **stages)
    both = metrics(task.train(checked(config), RunOptions(tmp_path / "both", tmp_path), screen))
    assert {start for start, *_ in seen["steps"]} == {"conv3", None}
    assert seen["prefix"] == []  # the first run has cached all of it
    assert [line["validation_loss"] for line in both[:1]] == [line["validation_loss"] for line in first]
    config.stages.varied.augment = False
    without = metrics(task.train(checked(config), RunOptions(tmp_path / "without", tmp_path), screen))
    assert without[0]["train_loss"] == both[0]["train_loss"]
    assert without[1]["train_loss"] != both[1]["train_loss"]


def test_fresh_variants_need_no_room_for_training_images(settle, feed, screen):
    needed = (rows_of(feed(small_config())) - TRAINING) * POOL2_BYTES
    fresh = {"preset": "keras_layers", "rotation": 0.1}
    assert settle(small_config(needed / 1e9, **fresh)) == [("pool2", None)]
    assert settle(small_config((needed - 1) / 1e9, **fresh), "other") == [(None, None)]
    assert "Validation of stage top starts from the images" in said(screen)


def metrics(folder):
    return [json.loads(line) for line in folder.metrics_file.read_text().splitlines()]

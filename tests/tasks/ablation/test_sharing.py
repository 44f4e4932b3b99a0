"""A sweep on the embedded digits, in this process: shared parts are computed once and do not change the numbers."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from vision_transfer.config import checked, default_config, stage, with_stages
from vision_transfer.errors import UserError
from vision_transfer.feature_cache import extraction
from vision_transfer.runs.build import DataFacts
from vision_transfer.runs.prepare import RunOptions
from vision_transfer.runtime.files import claimed_folder
from vision_transfer.tasks.ablation.all_runs import work
from vision_transfer.tasks.ablation.grid import ablation, networks_of
from vision_transfer.tasks.ablation.sweep import SweepFolder, finished_run, write_plan
from vision_transfer.tasks.ablation.task import run_ablation
from vision_transfer.tasks.train import task
from vision_transfer.training import loop
from vision_transfer.training.step import run_steps

EXAMPLES = 40


def config_of(**axes):
    config = default_config()
    config.name, config.task = "digits", "ablation"
    config.dataset.name, config.dataset.image_size, config.dataset.channels = "embedded", 20, 1
    config.study.train_examples, config.study.seeds, config.study.least_steps = (EXAMPLES,), (0,), 1
    config.ablation.masks = ("all", "below:conv3", "below:conv2")
    for name, value in axes.items():
        config.ablation[name] = value
    config.model.backbone, config.model.weights, config.model.hidden = "mnist_convnet", "random", (8,)
    adam = {"name": "adam", "lr": 3e-3}
    with_stages(
        config, head=stage(freeze="all", epochs=2, optimizer=adam), tune=stage(freeze="none", epochs=2, optimizer=adam)
    )
    config.log.report = False
    config.schedule = ()
    return checked(config)


@dataclass
class Counts:
    """The stages that were trained, and the number of computed feature rows."""

    stages: list = field(default_factory=list)
    rows: int = 0


@pytest.fixture
def counts(monkeypatch):
    counted = Counts()
    make_loop, compute = loop._make_loop, extraction.infer_batches

    def counted_loop(config, network, stage, *arguments):
        counted.stages.append(stage.name)
        return make_loop(config, network, stage, *arguments)

    def counted_stream(*arguments, **named):
        for batch in compute(*arguments, **named):
            counted.rows += len(batch)
            yield batch

    monkeypatch.setattr(loop, "_make_loop", counted_loop)
    monkeypatch.setattr(extraction, "infer_batches", counted_stream)
    return counted


@pytest.fixture
def sweep(tmp_path, monkeypatch, screen):
    """Does a sweep; returns its finished runs by name."""
    monkeypatch.chdir(tmp_path)
    facts = DataFacts(10, (20, 20, 1))

    def do(config, name, **options):
        study = ablation(config, networks_of(config, facts), 600)
        folder = SweepFolder(tmp_path / name)
        write_plan(study, folder, {})
        work(study, folder, RunOptions(None, tmp_path / "cache", **options), task.train, screen)
        return {run.name: finished_run(run, folder, None) for run in study.runs}

    return do


def logits(finished):
    with np.load(finished.folder / "predictions.npz") as arrays:
        return arrays["logits"]


def test_head_and_prefix_are_computed_once_and_the_numbers_are_those_of_single_runs(sweep, counts, tmp_path, screen):
    runs = sweep(config_of(), "first")
    assert counts.stages == ["head", "tune", "tune"]
    images = sum(next(iter(runs.values())).result["dataset"]["sizes"].values())
    # Every image goes through the convolutions before pool1 and before pool2 once; the head's run needs pool2 alone.
    assert counts.rows == 2 * images
    deepest = runs["below:conv2, 40 images, seed 0"]
    alone = task.train(deepest.run.config, RunOptions(tmp_path / "alone", tmp_path / "cache"), screen)
    assert counts.stages == ["head", "tune", "tune", "head", "tune"]
    np.testing.assert_array_equal(logits(deepest), np.load(alone.predictions_file)["logits"])
    assert [s["validation"] for s in alone.result()["stages"]] == [s["validation"] for s in deepest.result["stages"]]

    # Rates and multipliers are arguments: no program is compiled for them, and no head is trained.
    programs = run_steps._cache_size()
    other = config_of(
        masks=("below:conv3", "below:conv2"), learning_rates=(3e-3, 1e-3), multipliers=("none", "layer_decay=0.5")
    )
    second = sweep(other, "second")
    assert len(second) == 8
    assert run_steps._cache_size() == programs
    # Of the eight, the two at the first rate without multipliers are those of the first sweep.
    assert counts.stages[5:] == ["tune"] * 6
    assert len({logits(one).tobytes() for one in second.values()}) == 8


def test_gradual_unfreezing_shares_its_first_stages(sweep, counts):
    sweep(config_of(masks=("below:conv2", "none"), schedules=("gradual",)), "gradual")
    assert counts.stages == ["head", "unfreeze_conv3", "tune", "unfreeze_conv2", "tune"]


def test_a_rerun_trains_everything_itself(sweep, counts):
    sweep(config_of(masks=("all",)), "first")
    sweep(config_of(masks=("all", "below:conv3")), "again", rerun=True)
    assert counts.stages == ["head", "head", "head", "tune"]


def test_a_rerun_leaves_the_records_of_a_sweep_that_another_process_does(tmp_path, monkeypatch, screen):
    monkeypatch.chdir(tmp_path)
    config, options = config_of(masks=("all",)), RunOptions(tmp_path / "sweep", tmp_path / "cache")
    run_ablation(config, options, screen)
    files = sorted((tmp_path / "sweep").rglob("*.json"))
    claimed = claimed_folder(tmp_path / "sweep", UserError("not in use yet"))
    with claimed, pytest.raises(UserError, match="in use by another process"):
        run_ablation(config, replace(options, rerun=True), screen)
    assert sorted((tmp_path / "sweep").rglob("*.json")) == files

"""Plans: checks before the first run, fingerprints of the data, and the runs of a transfer curve."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from vision_transfer.config import checked, default_config, stage, with_stages
from vision_transfer.config.fields import with_value
from vision_transfer.data.load import load_dataset
from vision_transfer.errors import UserError
from vision_transfer.tasks.study import plan
from vision_transfer.tasks.study import runs as study_runs
from vision_transfer.tasks.study.plan import PlannedRun, Study, check_study, with_fingerprints, with_least_steps
from vision_transfer.tasks.study.task import transfer_curve


@pytest.fixture
def curve():
    """A transfer curve with two seeds at 100 and all 600 images."""
    config = default_config()
    config.name, config.task = "curve", "transfer_curve"
    config.dataset.name, config.dataset.root = "fashion_mnist", "FASHION"
    config.study.seeds, config.study.train_examples, config.study.source_root = (0, 1), (100, 0), "MNIST"
    config.study.least_steps, config.batch_size = 8, 64
    with_stages(config, pretrain=stage(epochs=1), head=stage(), whole=stage(freeze="none"), scratch=stage(epochs=7))
    config.schedule = ()
    return config


def test_one_pretraining_serves_all_and_a_head_is_trained_once(curve):
    study = transfer_curve(checked(curve), 600)
    check_study(study)
    assert len(study.runs) == 1 + 2 * 2 * 3
    assert Counter(run.start and run.start.name for run in study.runs)["pretraining"] == 4
    for run in study.runs:
        if run.labels.get("method") == "fine_tuning":
            assert run.start.name == run.name.replace("fine_tuning", "features")
        if run.labels.get("method") == "from_scratch":
            assert run.start is None
    assert [run.name for run in study.runs if not run.compared] == ["pretraining"]


def test_the_runs_are_trainings_of_one_stage_on_the_right_data(curve):
    study = transfer_curve(checked(curve), 600)
    pretraining, features, fine_tuning, scratch = study.runs[:4]
    assert {run.config.task for run in study.runs} == {"train"}
    assert (pretraining.config.dataset.name, pretraining.config.dataset.root) == ("mnist", "MNIST")
    assert (features.config.dataset.name, features.config.dataset.root) == ("fashion_mnist", "FASHION")
    assert (pretraining.config.schedule, features.config.schedule) == (("pretrain",), ("head",))
    assert features.config.init_from_layers == "backbone"
    assert fine_tuning.config.init_from_layers == "all"
    assert list(scratch.config.stages) == ["scratch"]
    assert scratch.config.stages["scratch"].epochs == 7


def test_the_source_is_taken_whole(curve):
    """What divides or caps the target's images, or groups them by their names, says nothing of the source's."""
    curve.dataset.train_examples, curve.dataset.grouped_by, curve.dataset.subset_seed = 500, "^(p[0-9]+)_", 3
    pretraining = transfer_curve(checked(curve), 500).runs[0].config.dataset
    assert (pretraining.train_examples, pretraining.grouped_by, pretraining.subset_seed) == (None, None, 0)


def test_studies_of_other_data_have_other_folders(study):
    runs = tuple(replace(run, data="other") for run in study.runs)
    assert Study("s", runs).digest != Study("s", study.runs).digest


def test_a_run_without_enough_memory_is_a_failed_run(monkeypatch, study, screen):
    """It must not end a sweep, as a bug does."""

    def without_memory(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nmore")

    monkeypatch.setattr(study_runs, "train", without_memory)
    with pytest.raises(UserError, match=r"needs more memory than there is \(RESOURCE_EXHAUSTED.*batch_size"):
        study_runs.launch(study.runs[0].config, None, screen)
    monkeypatch.setattr(study_runs, "train", lambda *_: (_ for _ in ()).throw(RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        study_runs.launch(study.runs[0].config, None, screen)


def test_a_seed_draws_the_subset_and_small_sets_have_longer_epochs(curve):
    by_name = {run.name: run.config for run in transfer_curve(checked(curve), 600).runs}
    small, whole = by_name["features, 100 images, seed 1"], by_name["features, 600 images, seed 1"]
    assert (small.seed, small.dataset.subset_seed, small.dataset.train_examples) == (1, 1, 100)
    assert whole.dataset.train_examples is None
    assert small.stages["head"].steps_per_epoch == 8  # a pass has two
    assert whole.stages["head"].steps_per_epoch is None  # a pass has ten
    assert curve.stages.head.steps_per_epoch is None


def test_a_size_larger_than_the_data_is_refused(curve):
    curve.study.train_examples = (100, 601)
    with pytest.raises(UserError, match=r"601.*600 training images"):
        transfer_curve(checked(curve), 600)


def test_a_missing_stage_is_named(curve):
    with curve.stages.unlocked():
        del curve.stages["whole"]
    with pytest.raises(UserError, match="'whole'"):
        checked(curve)


def test_a_wrong_value_is_found_before_the_first_run(curve):
    curve.stages.scratch.epochs = 0
    with pytest.raises(UserError, match=r"from_scratch, 100 images, seed 0.*\n.*epochs"):
        check_study(transfer_curve(checked(curve), 600))


def test_an_empty_study_is_refused(curve):
    curve.study.seeds = ()
    with pytest.raises(UserError, match="nothing to run"):
        check_study(transfer_curve(checked(curve), 600))


def test_a_start_must_be_an_earlier_run_and_names_are_unique(study):
    with pytest.raises(UserError, match="'base', which is no earlier run"):
        check_study(Study("s", study.runs[1:]))
    with pytest.raises(UserError, match="twice"):
        check_study(Study("s", (*study.runs, study.runs[0])))


def test_the_digest_is_that_of_what_determines_the_runs(curve):
    before = transfer_curve(checked(curve), 600).digest
    curve.dataset.root = "elsewhere"
    assert transfer_curve(checked(curve), 600).digest == before
    curve.stages.head.epochs = 99
    assert transfer_curve(checked(curve), 600).digest != before


@pytest.mark.parametrize(("of_stage", "of_study", "expected"), [(20, 10, 20), (20, 50, 50), (1, 4, None)])
def test_epochs_have_the_larger_number_of_least_steps(of_stage, of_study, expected):
    """100 images in batches of 32 are four steps."""
    config = default_config()
    config.batch_size, config.study.least_steps = 32, of_study
    config = checked(with_stages(config, head=stage(freeze="all", least_steps=of_stage)))
    assert with_least_steps(config, 100).stages["head"].steps_per_epoch == expected


@pytest.mark.parametrize("start", ["init_from", "model.weights_path"])
def test_a_run_from_other_weights_is_another_run(start):
    """The digest of a config omits where they are: a single run has that of the weights themselves."""
    config = checked(with_stages(default_config(), head=stage(freeze="all")))
    runs = [PlannedRun("run", with_value(config, start, path), {}) for path in (None, "first", "second")]
    assert len({run.key for run in runs}) == len({run.first_stage_key for run in runs}) == 3
    assert len({Study("s", (run,)).digest for run in runs}) == 3
    absolute = with_value(runs[1].config, start, str(Path("first").absolute()))
    assert Study("s", (PlannedRun("run", absolute, {}),)).digest == Study("s", (runs[1],)).digest


def write_image(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 12, 3), np.uint8)).save(path)


def test_a_plan_has_the_fingerprint_of_its_data_for_any_subset(study, tmp_path, screen, monkeypatch):
    for number in range(30):
        write_image(tmp_path / "images" / ("cat" if number % 2 else "dog") / f"{number}.png", number)
    root, runs = str(tmp_path / "images"), []
    for number, run in enumerate(study.runs):
        dataset = replace(run.config.dataset, root=root, train_examples=(None, 10, 20)[number], subset_seed=number)
        runs.append(replace(run, config=replace(run.config, dataset=dataset)))
    study = replace(study, runs=tuple(runs))
    reads = []
    read = plan.data_fingerprint
    monkeypatch.setattr(plan, "data_fingerprint", lambda *given, **named: reads.append(0) or read(*given, **named))
    planned = with_fingerprints(study, tmp_path / "cache", screen)
    assert isinstance(planned, Study)
    loaded = load_dataset(study.runs[1].config.dataset, cache_dir=tmp_path / "cache", screen=screen)
    assert {run.data for run in planned.runs} == {loaded.fingerprint}
    assert len(reads) == 1
    write_image(tmp_path / "images" / "cat" / "1.png", 99)
    assert with_fingerprints(study, tmp_path / "cache", screen).runs[0].data != loaded.fingerprint

"""Plans: their order is checked before anything runs, and a transfer curve has the runs that it should."""

from collections import Counter

import pytest

from vision_transfer.config import checked, default_config, stage, with_stages
from vision_transfer.errors import UserError
from vision_transfer.tasks.study.plan import Study, check_study
from vision_transfer.tasks.study.transfer_curve import transfer_curve


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
    assert Counter(run.start for run in study.runs)["pretraining"] == 4
    for run in study.runs:
        if run.labels.get("method") == "fine_tuning":
            assert run.start == run.name.replace("fine_tuning", "features")
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


def test_a_seed_draws_the_subset_and_small_sets_have_longer_epochs(curve):
    by_name = {run.name: run.config for run in transfer_curve(checked(curve), 600).runs}
    small, whole = by_name["features, 100 images, seed 1"], by_name["features, 600 images, seed 1"]
    assert (small.seed, small.dataset.subset_seed, small.dataset.train_examples) == (1, 1, 100)
    assert whole.dataset.train_examples is None
    assert small.stages["head"].steps_per_epoch == 8  # a pass has two
    assert whole.stages["head"].steps_per_epoch is None  # a pass has ten
    assert curve.stages.head.steps_per_epoch is None


def test_a_size_that_the_data_do_not_have_is_refused(curve):
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


def test_a_start_must_be_an_earlier_run_and_no_name_stands_twice(study):
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

"""A finished run read back: the parameters that it gives are those that were tested."""

import json
import shutil

import numpy as np
import pytest

from vision_transfer.config import checked, default_config, read_config, stage, to_dict, with_stages
from vision_transfer.data.load import load_dataset
from vision_transfer.errors import UserError
from vision_transfer.models.inference import infer
from vision_transfer.runs.load import load_run
from vision_transfer.runs.prepare import RunOptions
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.devices import local_mesh
from vision_transfer.tasks.train.task import train


def _config(evaluate):
    config = default_config()
    config.log.report = False
    config.dataset.name = "embedded"
    config.dataset.image_size = 12
    config.dataset.channels = 1
    config.dataset.train_examples = 100
    config.model.backbone = "dense"
    config.model.weights = "random"
    config.model.hidden = (8,)
    config.evaluate = evaluate
    fast = {"name": "adam", "lr": 3e-2}
    return with_stages(
        config,
        head=stage(freeze="none", epochs=3, optimizer=fast),
        more=stage(freeze="none", epochs=4, optimizer=fast, start_from="last"),
    )


@pytest.fixture(scope="module")
def caches(tmp_path_factory):
    return tmp_path_factory.mktemp("caches")


@pytest.fixture(scope="module")
def finished(caches, tmp_path_factory):
    """The folder of a finished run."""
    return train(checked(_config("best")), RunOptions(tmp_path_factory.mktemp("runs") / "run", caches), Screen())


@pytest.mark.parametrize(
    ("evaluate", "second_lr", "tested"), [("best", 3e-2, "more"), ("last", 3e-2, "more"), ("best_stage", 30.0, "head")]
)
def test_a_run_read_back_predicts_what_it_predicted(tmp_path, caches, screen, evaluate, second_lr, tested):
    config = _config(evaluate)
    config.stages.more.optimizer.lr = second_lr
    folder = train(checked(config), RunOptions(tmp_path / "run", caches), screen)
    assert folder.result()["tested"]["stage"] == tested
    run = load_run(folder.path, caches, screen)
    split = load_dataset(run.config.dataset, cache_dir=caches, screen=screen).test
    logits = infer(run.network, run.variables, split.images, local_mesh(), batch_size=run.config.eval_batch_size)
    with np.load(folder.predictions_file) as predicted:
        np.testing.assert_array_equal(logits, predicted["logits"])
    assert run.classes == tuple(str(digit) for digit in range(10))


def test_the_saved_config_is_the_config(finished):
    config = read_config(finished.config_file)
    assert json.loads(finished.config_file.read_text()) == json.loads(json.dumps(to_dict(config)))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: (run / "result.json").unlink(), "not finished"),
        (lambda run: (run / "config.json").unlink(), "not the folder of a run"),
        (lambda run: (run / "config.json").write_text("{"), "cannot be read"),
        (lambda run: (run / "config.json").write_text('{"stages": {}, "speed": 1}'), "this version has no such field"),
        (lambda run: (run / "result.json").write_text("{}"), "is damaged or was edited"),
        (lambda run: shutil.rmtree(run / "checkpoints" / "more"), "not finished"),
    ],
)
def test_what_is_missing_is_said(finished, tmp_path, caches, screen, damage, message):
    copy = shutil.copytree(finished.path, tmp_path / "run")
    damage(copy)
    with pytest.raises(UserError, match=message):
        load_run(copy, caches, screen)

"""A bank of variants: training from its cached features is training on its images."""

import io
import json

import pytest
from rich.console import Console

from vision_transfer.config import checked, default_config, stage, with_stages
from vision_transfer.runs.prepare import RunOptions
from vision_transfer.runtime.console import Screen
from vision_transfer.tasks.train import task

BANK = 2
# Cached or not, only rounding differs; other variants differ ten times as much at least.
AGREEMENT = 5e-5


def small_config(**augment):
    config = default_config()
    config.name = "bank"
    config.log.report = False
    config.dataset.name = "embedded"
    config.dataset.image_size = 28
    config.dataset.train_examples = 100
    config.model.backbone = "mnist_convnet"
    config.model.weights = "random"
    config.model.hidden = ()
    config.augment.update({"preset": "keras_layers", "rotation": 0.1, "zoom": 0.2, **augment})
    adam = {"name": "adam", "lr": 1e-3}
    return with_stages(config, top=stage(freeze="below:conv3", epochs=BANK + 1, optimizer=adam))


def records(config, folder, cache):
    screen = Screen(Console(file=io.StringIO()))
    run = task.train(checked(config), RunOptions(folder, cache), screen)
    return [json.loads(line) for line in run.metrics_file.read_text().splitlines()]


def test_training_from_a_cached_bank_is_training_on_its_variants(tmp_path):
    cached = records(small_config(bank=BANK), tmp_path / "cached", tmp_path / "cache")
    config = small_config(bank=BANK)
    config.features.cache = False
    in_step = records(config, tmp_path / "in_step", tmp_path / "cache")
    fresh = records(small_config(bank=0), tmp_path / "fresh", tmp_path / "cache")
    for with_cache, without in zip(cached, in_step, strict=True):
        assert with_cache["train_loss"] == pytest.approx(without["train_loss"], rel=AGREEMENT)
        assert with_cache["validation_loss"] == pytest.approx(without["validation_loss"], rel=AGREEMENT)
    assert cached[-1]["train_loss"] != pytest.approx(fresh[-1]["train_loss"], rel=10 * AGREEMENT)

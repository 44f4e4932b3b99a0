"""A bank of variants: cached features and fresh ones are the same variants, epoch after epoch."""

import io
import json

import jax
import numpy as np
import pytest
from rich.console import Console

from vision_transfer.config import checked, default_config, stage, with_stages
from vision_transfer.data.augmentation import AugmentConfig, augment_batch
from vision_transfer.data.augmentation.variants import Augmentation, BankRows
from vision_transfer.runs.prepare import RunOptions
from vision_transfer.runtime.console import Screen
from vision_transfer.tasks.train import task

BANK = 2
# Cached or not, only rounding differs; other variants differ ten times as much at least.
AGREEMENT = 5e-5
OPERATIONS = AugmentConfig(preset="keras_layers", flip="horizontal", rotation=0.1, zoom=0.2)


def small_config(**augment):
    config = default_config()
    config.name = "bank"
    config.dataset.name = "embedded"
    config.dataset.image_size = 28
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


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (6, 12, 12, 3), np.uint8), np.arange(10, 16, dtype=np.uint32)


@pytest.mark.parametrize("variant", range(BANK))
def test_a_variant_is_what_augmentation_makes_of_the_banks_own_key(images, variant):
    pixels, ids = images
    rows = BankRows(pixels, ids, Augmentation(OPERATIONS, BANK, bank_seed=3), variant)
    expected = augment_batch(pixels, ids, jax.random.key(3), variant, OPERATIONS)
    np.testing.assert_allclose(rows[np.arange(6)], expected, atol=1e-3)


def test_a_variant_does_not_depend_on_the_rows_it_is_taken_with(images):
    pixels, ids = images
    rows = BankRows(pixels, ids, Augmentation(OPERATIONS, BANK), 1)
    np.testing.assert_allclose(rows[np.array([4, 1])], rows[np.arange(6)][[4, 1]], atol=1e-3)


@pytest.mark.parametrize(("bank", "stage_keys_matter"), [(0, True), (BANK, False)])
def test_only_fresh_variants_depend_on_the_stages_key(images, bank, stage_keys_matter):
    pixels, ids = images
    augmentation = Augmentation(OPERATIONS, bank)
    first, second = (augmentation.apply(pixels, ids, jax.random.key(seed), 0) for seed in (1, 2))
    assert np.allclose(first, second) != stage_keys_matter


@pytest.mark.parametrize(("bank", "repeats"), [(0, False), (BANK, True)])
def test_epoch_e_uses_variant_e_mod_k(images, bank, repeats):
    pixels, ids = images
    augmentation = Augmentation(OPERATIONS, bank)
    first, later = (augmentation.apply(pixels, ids, jax.random.key(0), epoch) for epoch in (0, BANK))
    assert np.allclose(first, later) == repeats


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

"""Damaged files of this package: noticed and written again, or refused with a message; never used silently."""

import io
import json
import shutil

import jax
import numpy as np
import pytest
from rich.console import Console

from vision_transfer.config import checked, default_config, stage, with_stages
from vision_transfer.data.formats.folder import folder_source
from vision_transfer.data.images.cache import load_images
from vision_transfer.data.images.resize import Form
from vision_transfer.errors import UserError
from vision_transfer.feature_cache.store import Store, open_store, write_shard
from vision_transfer.runs.folder import RunFolder
from vision_transfer.runs.load import load_run
from vision_transfer.runs.prepare import RunOptions
from vision_transfer.runtime.console import Screen
from vision_transfer.tasks.train.task import train
from vision_transfer.training import checkpoints

FORM = Form(size=6, channels=3, resampling="bilinear")


def _files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")


def _damaged_copy(folder, target, mutated, random):
    """A copy of a folder with one file of it mutated."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(folder, target)
    files = _files(target)
    file = files[int(random.integers(0, len(files)))]
    file.write_bytes(mutated(file.read_bytes(), random))


def test_checkpoints(cases, mutated, tmp_path):
    tree = {"kernel": np.arange(12.0, dtype=np.float32).reshape(3, 4), "step": np.int32(7)}
    checkpoints.save(tmp_path / "whole", 5, tree, {"epoch": 3, "history": [{"loss": 0.1}]})
    copy = tmp_path / "copy"
    for random in cases(0.06):
        _damaged_copy(tmp_path / "whole", copy, mutated, random)
        try:
            found = checkpoints.load(copy, tree)
        except UserError as message:
            assert "checkpoint" in str(message)
            continue
        if found is not None:
            jax.tree.map(np.testing.assert_array_equal, found.tree, tree)


def test_cached_images(cases, mutated, tmp_path, quiet):
    from PIL import Image

    pixels = np.random.default_rng(0)
    for split in ("train", "validation", "test"):
        for name in ("cat", "dog"):
            (tmp_path / "pets" / split / name).mkdir(parents=True)
            for number in range(2):
                image = Image.fromarray(pixels.integers(0, 256, (8, 9, 3), dtype=np.uint8))
                image.save(tmp_path / "pets" / split / name / f"{number}.png")
    source = folder_source(tmp_path / "pets", quiet)
    expected, _ = load_images(source, FORM, tmp_path / "whole", quiet)
    for random in cases(0.05):
        _damaged_copy(tmp_path / "whole", tmp_path / "copy", mutated, random)
        found, _ = load_images(source, FORM, tmp_path / "copy", quiet)
        for split in expected:
            np.testing.assert_array_equal(found[split].images, expected[split].images)
            np.testing.assert_array_equal(found[split].labels, expected[split].labels)
            assert found[split].files == expected[split].files


def test_cached_features(cases, mutated, tmp_path, quiet):
    rows = np.random.default_rng(0).normal(size=(6, 2, 3)).astype(np.float32)
    keys = np.arange(96, dtype=np.uint8).reshape(6, 16)
    whole, copy = tmp_path / "whole", tmp_path / "copy"
    whole.mkdir()
    write_shard(Store(whole), rows[:4], keys[:4])
    write_shard(Store(whole), rows[4:], keys[4:])
    for random in cases(0.06):
        _damaged_copy(whole, copy, mutated, random)
        found = open_store(Store(copy), quiet, remove_damaged=True)
        for place, key in enumerate(keys):
            if (found.keys == key).all(axis=1).any():
                np.testing.assert_array_equal(found.rows(key[None])[np.array([0])][0], rows[place])


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    config = default_config()
    config.dataset.name = "embedded"
    config.dataset.image_size = 8
    config.dataset.channels = 1
    config.dataset.train_examples = 20
    config.model.backbone = "dense"
    config.model.weights = "random"
    config.model.hidden = (3,)
    config = checked(with_stages(config, head=stage(freeze="none", epochs=1)))
    screen = Screen(Console(file=io.StringIO(), width=200))
    return train(config, RunOptions(folder / "run", folder / "cache"), screen), folder / "cache", config


def test_a_run_that_is_loaded(cases, mutated, small_run, tmp_path, quiet):
    folder, cache, _ = small_run
    for random in cases(0.05):
        _damaged_copy(folder.path, tmp_path / "copy", mutated, random)
        try:
            run = load_run(tmp_path / "copy", cache, quiet)
        except UserError as message:
            assert len(str(message)) > 20
            continue
        assert jax.tree.structure(run.variables["params"]) is not None


def test_a_finished_run_that_is_shown(cases, mutated, small_run, tmp_path, quiet):
    folder, cache, config = small_run
    names = ("result.json", "identity.json", "config.json", "metrics.jsonl")
    for random in cases(0.02):
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(folder.path, copy)
        file = copy / names[int(random.integers(0, len(names)))]
        file.write_bytes(mutated(file.read_bytes(), random))
        try:
            shown = train(config, RunOptions(copy, cache), quiet)
        except UserError as message:
            assert len(str(message)) > 20
            continue
        assert json.loads(RunFolder(shown.path).result_file.read_text())["test"]["examples"] > 0

"""Noise pictures in class folders, a small run on them, and the same for a run that is damaged on purpose."""

import shutil

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from vision_transfer.config import checked, default_config, stage, with_stages
from vision_transfer.runs.prepare import RunOptions
from vision_transfer.runtime.console import Screen
from vision_transfer.tasks.train.task import train

CLASSES = ("bright", "dark", "grey [or so]")


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """Three classes that overlap, in train, validation and test, as JPEG and PNG of several sizes."""
    root = tmp_path_factory.mktemp("pictures") / "my pictures é"
    random = np.random.default_rng(0)
    for split, count in (("train", 12), ("validation", 9), ("test", 7)):
        for level, name in zip((150, 105, 128), CLASSES, strict=True):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                shape = (20 + number, 31 - number, 3)
                pixels = np.clip(random.normal(level + random.normal(0, 15), 40, shape), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{number}.{'png' if number % 2 else 'jpg'}")
    return root


@pytest.fixture(scope="session")
def caches(tmp_path_factory):
    return tmp_path_factory.mktemp("caches")


@pytest.fixture(scope="session")
def finished_run(pictures, caches, tmp_path_factory):
    """A dense network whose last stage starts from the images."""
    config = default_config()
    config.name = "noise"
    config.dataset.name = "folder"
    config.dataset.root = str(pictures)
    config.dataset.image_size = 9
    config.model.backbone = "dense"
    config.model.weights = "random"
    config.model.hidden = (4,)
    config.eval_batch_size = 4
    config = with_stages(config, head=stage(freeze="none", epochs=6, optimizer={"name": "adam", "lr": 1e-2}))
    folder = tmp_path_factory.mktemp("runs") / "run"
    return train(checked(config), RunOptions(folder, caches), Screen(Console(quiet=True))).path


@pytest.fixture
def copied_run(finished_run, tmp_path):
    return shutil.copytree(finished_run, tmp_path / "copy", ignore=shutil.ignore_patterns("temperature.json"))

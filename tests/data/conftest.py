"""Small data sets to test with, and a screen that keeps what is said."""

import io
import os

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from vision_transfer.config.schema import DatasetConfig
from vision_transfer.data.load import load_dataset
from vision_transfer.runtime.console import Screen


class Said(Screen):
    """A screen whose text can be read back."""

    @property
    def text(self):
        return self.console.file.getvalue()


@pytest.fixture
def screen():
    return Said(Console(file=io.StringIO(), width=200))


@pytest.fixture
def deny(tmp_path):
    """Takes all permissions from a path and gives them back afterwards; skips for users who may read everything."""
    denied = []

    def take_away(path):
        path.chmod(0)
        denied.append(path)
        if os.access(path, os.R_OK):
            pytest.skip("this user may read everything")

    yield take_away
    for path in denied:
        path.chmod(0o700)


@pytest.fixture
def write_image():
    """Writes a file of noise and returns its pixels."""

    def write(path, seed, kind=None, size=(20, 16)):
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path, kind)
        return pixels

    return write


@pytest.fixture
def image_folder(tmp_path, write_image):
    """Two classes; of each 3 training images, 2 of validation and 2 of test, all different."""
    root = tmp_path / "pets"
    seed = 0
    for split, count in (("train", 3), ("validation", 2), ("test", 2)):
        for name in ("cat", "dog"):
            for number in range(count):
                write_image(root / split / name / f"{name}.{number}.png", seed)
                seed += 1
    return root


@pytest.fixture
def load(tmp_path, screen):
    def load(**request):
        root = request.pop("root", None)
        config = DatasetConfig(root=None if root is None else str(root), **{"test_fraction": 0.1, **request})
        return load_dataset(config, cache_dir=tmp_path / "cache", screen=screen)

    return load


@pytest.fixture
def unsplit(tmp_path, write_image):
    """Class folders of unequal size without splits: 12 cats, 6 dogs, 3 birds."""
    root = tmp_path / "own"
    for seed, (name, count) in enumerate({"cat": 12, "dog": 6, "bird": 3}.items()):
        for number in range(count):
            write_image(root / name / f"{number}.png", 100 * seed + number)
    return root

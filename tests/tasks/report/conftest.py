"""Run folders to report on: one written by hand, and two from real runs on digits and on photos."""

import importlib.util
import io
import json

import numpy as np
import pytest
from rich.console import Console

from vision_transfer.config import checked, default_config, stage, to_dict, with_stages
from vision_transfer.data.formats.arrays import embedded_source
from vision_transfer.data.source import fingerprint
from vision_transfer.metrics.classification import evaluate_test
from vision_transfer.runs.folder import RunFolder
from vision_transfer.runs.prepare import RunOptions
from vision_transfer.runtime.console import Screen
from vision_transfer.tasks.train.task import train

CLASSES = [str(digit) for digit in range(10)]
# Of each split and class of the photos.
PHOTOS = {"train": 10, "validation": 6, "test": 8}


def epoch(stage_name, number, train_loss, validation_loss):
    """A line of `metrics.jsonl`."""
    return {
        "stage": stage_name,
        "epoch": number,
        "train_loss": train_loss,
        "train_accuracy": 1 / (1 + train_loss),
        "validation_loss": validation_loss,
        "validation_accuracy": None if validation_loss is None else 1 / (1 + validation_loss),
        "lr": 1e-3,
        "seconds": 1.5,
    }


def overfitted_epochs(name="head"):
    """Ten epochs whose validation loss falls to the third and then rises."""
    validation = [1.0, 0.6, 0.4, 0.5, 0.7, 0.9, 1.1, 1.3, 1.5, 1.7]
    return [epoch(name, place + 1, 2.0 / (place + 1), loss) for place, loss in enumerate(validation)]


def write_run(path, *, classes=CLASSES, files=None, seed=0, epochs=None, logits=None):
    """Writes the folder of a finished run on the embedded digits, without checkpoints; returns its `RunFolder`."""
    path.mkdir(parents=True)
    folder = RunFolder(path)
    config = default_config()
    config.name = "by_hand"
    config.seed = seed
    config.dataset.name = "embedded"
    config.dataset.image_size = 20
    config.model.backbone = "mnist_convnet"
    config.model.weights = "random"
    with_stages(config, head=stage(freeze="none", epochs=10))
    folder.config_file.write_text(json.dumps(to_dict(checked(config))), encoding="utf-8")
    source = embedded_source()
    test = source.splits["test"]
    files = test.files if files is None else files
    labels = test.labels[: len(files)] % len(classes)
    if logits is None:
        logits = np.random.default_rng(seed).normal(0, 1, (len(files), len(classes))).astype(np.float32)
        logits[np.arange(len(files)), labels] += 3
    folder.write_predictions(logits, labels, tuple(files))
    epochs = overfitted_epochs() if epochs is None else epochs
    folder.write_metrics(epochs)
    found = evaluate_test(logits, labels)
    versions = {"python": "3.11", "jax": "0.10"}
    identity = {"digest": "0" * 16, "code": "1" * 16, "versions": versions, "device": "cpu × 1"}
    folder.identity_file.write_text(json.dumps({**identity, "command": "python launch.py --config=x.py"}))
    parameters = {"total": 100, "trainable": 60, "frozen": 40}
    result = {
        "name": "by_hand",
        "digest": "0" * 16,
        "code_digest": "1" * 16,
        "dataset": {
            "name": source.name,
            "note": source.note,
            "fingerprint": fingerprint(source),
            "classes": list(classes),
            "sizes": {"train": 600, "validation": 200, "test": len(files)},
            "skipped": [],
        },
        "weights": {"source": "random initialisation", "sha256": None, "licence": None},
        "parameters": parameters,
        "stages": [
            {
                "name": "head",
                "freeze": "none",
                "cut": "conv1",
                "cached": None,
                "epochs": len(epochs),
                "best_epoch": 3,
                "train": {"loss": 0.6, "accuracy": 0.8},
                "validation": {"loss": 0.4, "accuracy": 0.9},
                "parameters": parameters,
                "seconds": 15.0,
                "step_ms": 12.0,
            }
        ],
        "tested": {"stage": "head", "epoch": 3, "validation": {"loss": 0.4, "accuracy": 0.9}},
        "test": {
            "loss": found.loss,
            "accuracy": found.accuracy,
            "accuracy_ci95": list(found.accuracy_ci95),
            "examples": found.examples,
            "confusion": found.confusion,
        },
        "seconds": {"total": 18.0, "data": 1.0, "features": 0.0, "train": 15.0, "evaluate": 2.0},
        "memory": {"process_peak_bytes": {"data": 10**8, "train": 5 * 10**8}, "device_peak_bytes": None},
        "device": "cpu × 1",
        "versions": versions,
    }
    folder.result_file.write_text(json.dumps(result), encoding="utf-8")
    return folder


@pytest.fixture
def make_run(tmp_path):
    """Writes a run into a folder of this name; see `write_run`."""
    return lambda name, **changes: write_run(tmp_path / name, **changes)


@pytest.fixture
def make_epoch():
    return epoch


@pytest.fixture
def by_hand(tmp_path):
    return write_run(tmp_path / "run")


@pytest.fixture(scope="session")
def caches(tmp_path_factory):
    return tmp_path_factory.mktemp("caches")


def _config(name, size):
    config = default_config()
    config.name = name
    config.dataset.image_size = size
    config.model.backbone = "mnist_convnet"
    config.model.weights = "random"
    config.model.hidden = (16,)
    return config


def _quiet():
    return Screen(Console(file=io.StringIO(), width=200))


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory, caches):
    """A small convnet trained on the digits in two stages, with event files if tensorboardX is there; its folder."""
    config = _config("digits", 20)
    config.dataset.name = "embedded"
    config.dataset.channels = 1
    config.dataset.train_examples = 200
    config.log.tracker = "tensorboard" if importlib.util.find_spec("tensorboardX") else "none"
    fast = {"name": "adam", "lr": 3e-3}
    with_stages(config, whole=stage(freeze="none", epochs=6, optimizer=fast), top=stage(freeze="below:conv3", epochs=2))
    options = RunOptions(
        tmp_path_factory.mktemp("runs") / "digits", caches, command="python launch.py --config=digits.py"
    )
    return train(checked(config), options, _quiet()).path


@pytest.fixture(scope="session")
def photos_run(tmp_path_factory, caches, data_folder):
    """A small convnet trained on a few photos of cats and dogs; its folder."""
    photos = data_folder / "cats_vs_dogs_small"
    if not photos.is_dir():
        pytest.skip(f"there is no {photos}")
    root = tmp_path_factory.mktemp("photos") / "cats and dogs"
    for split, count in PHOTOS.items():
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            for file in sorted((photos / split / name).iterdir())[:count]:
                (root / split / name / file.name).symlink_to(file)
    config = _config("photos", 40)
    config.log.report = False
    config.dataset.name = "folder"
    config.dataset.root = str(root)
    config.batch_size = 10
    with_stages(config, whole=stage(freeze="none", epochs=3, optimizer={"name": "adam", "lr": 1e-3}))
    options = RunOptions(tmp_path_factory.mktemp("runs") / "photos", caches)
    return train(checked(config), options, _quiet()).path

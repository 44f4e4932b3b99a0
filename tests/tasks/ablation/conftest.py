"""A small network, grids over it, and fake runs: a launcher that writes a result and counts its calls."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pytest

from vision_transfer.config import checked, default_config, stage, with_stages
from vision_transfer.errors import UserError
from vision_transfer.models.backbones.registry import backbone_rows
from vision_transfer.models.heads import head_layers
from vision_transfer.models.network import Network
from vision_transfer.runs import manifest
from vision_transfer.runs.folder import FolderBusy, Identity, RunFolder
from vision_transfer.runs.prepare import RunOptions, device_text
from vision_transfer.runtime.files import write_json
from vision_transfer.runtime.provenance import versions

CODE, DATA = "digest of the code", "fingerprint of the data"


@pytest.fixture(scope="session")
def vgg():
    head = head_layers(1, flatten=True, hidden=(8,), activation="relu", dropout=0.0, dropout_place="before_output")
    return Network(backbone_rows("vgg16"), head, (64, 64, 3))


@pytest.fixture(scope="session")
def lite():
    head = head_layers(1, flatten=True, hidden=(8,), activation="relu", dropout=0.0, dropout_place="before_output")
    return Network(backbone_rows("efficientnet_lite0"), head, (64, 64, 3), preprocessing="lite")


@pytest.fixture(scope="session")
def networks(vgg):
    return {"vgg16": vgg}


@pytest.fixture(scope="session")
def two_networks(vgg, lite):
    return {"vgg16": vgg, "efficientnet_lite0": lite}


@pytest.fixture
def grid():
    """Builds a config of the task; keywords are fields of `config.ablation`."""

    def build(sizes=(0,), seeds=(0, 1), **axes):
        config = default_config()
        config.name, config.task = "grid", "ablation"
        config.study.train_examples, config.study.seeds, config.study.least_steps = sizes, seeds, 1
        config.ablation.masks = ("all", "below:block5_conv2", "below:block4_conv3")
        for name, value in axes.items():
            config.ablation[name] = value
        with_stages(config, head=stage(freeze="all", epochs=3), tune=stage(freeze="none", epochs=5))
        config.schedule = ()
        return checked(config)

    return build


@dataclass
class Launcher:
    """Replaces training: writes the files of a run and records the calls.

    Attributes:
        root: folder of the runs.
        asked: seed and last freeze spec of each call.
        fails: a freeze spec whose runs fail.
        busy: how many calls find the run in use by another process.
        stop_before: the number of calls at which the process is killed.
    """

    root: Path
    asked: list = field(default_factory=list)
    fails: str | None = None
    busy: int = 0
    stop_before: int | None = None

    def __call__(self, config, options, screen):
        freeze = config.stages[config.schedule[-1]].freeze
        if len(self.asked) == self.stop_before:
            raise KeyboardInterrupt
        if freeze == self.fails:
            raise UserError("the loss is not finite")
        if self.busy:
            self.busy -= 1
            raise FolderBusy("in use by another process")
        self.asked.append((config.seed, freeze))
        model = config.model
        labels = (config.seed, freeze, config.dataset.train_examples, config.batch_size, model.batch_norm_statistics)
        folder = RunFolder(self.root / "-".join(map(str, (model.backbone, *labels))))
        write_result(folder, 0.5 + 0.05 * config.seed + 0.01 * (len(freeze) % 40))
        return folder


def write_result(folder, test, seconds=2.0):
    """The files of a run that tables and figures read."""
    folder.path.mkdir(parents=True, exist_ok=True)
    write_json(folder.identity_file, asdict(Identity("digest", CODE, versions(), device_text())))
    right = np.arange(100) < round(100 * test)
    logits = np.where(right, 2.0, -2.0).astype(np.float32)[:, None]
    folder.write_predictions(logits, np.ones(100, np.int32), tuple(map(str, range(100))))
    result = {
        "stages": [{"seconds": seconds}],
        "tested": {"stage": "head", "validation": {"accuracy": test - 0.01}},
        "test": {"accuracy": test, "accuracy_ci95": [test - 0.05, test + 0.05], "examples": 100},
        "parameters": {"trainable": 1000},
        "dataset": {"sizes": {"validation": 50}, "fingerprint": DATA},
        "seconds": {"total": 3 * seconds},
    }
    manifest.write_result(folder, "digest", result)


@pytest.fixture
def launcher(tmp_path, monkeypatch):
    """The digest of the numeric code is fixed, because computing it takes longer than everything else here."""
    monkeypatch.setattr("vision_transfer.tasks.study.runs.running_code_digest", lambda: CODE)
    return Launcher(tmp_path / "runs")


@pytest.fixture
def options(tmp_path):
    return RunOptions(tmp_path / "sweep", tmp_path / "cache")


@pytest.fixture
def read_json():
    return lambda file: json.loads(file.read_text(encoding="utf-8"))

"""Studies with fake runs: a launcher that writes a result and records its calls."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pytest

from vision_transfer.config import checked, default_config, stage, with_stages
from vision_transfer.runs.folder import Identity, RunFolder
from vision_transfer.runs.manifest import write_result
from vision_transfer.runs.prepare import device_text
from vision_transfer.runtime.files import write_json
from vision_transfer.runtime.provenance import versions
from vision_transfer.tasks.study.plan import PlannedRun, Study

CODE, DATA = "digest of the code", "fingerprint of the data"


def result_of(test, validation=0.9, trainable=1000, seconds=2.0):
    """The part of a `result.json` that studies read."""
    return {
        "tested": {"stage": "head", "validation": {"accuracy": validation}},
        "test": {"accuracy": test, "accuracy_ci95": [test - 0.05, test + 0.05], "examples": 100},
        "parameters": {"trainable": trainable},
        "dataset": {"fingerprint": DATA},
        "seconds": {"total": seconds},
    }


@dataclass
class Launcher:
    """Replaces a task: writes the files of a run and records the calls.

    Attributes:
        root: folder of the runs.
        asked: `(name, init_from)` of each call.
        stop_before: name of a run at which the process is killed.
    """

    root: Path
    asked: list = field(default_factory=list)
    stop_before: str | None = None
    recorded: Identity | None = None

    def __call__(self, config, options, screen):
        assert options.workdir is None
        if config.name == self.stop_before:
            raise KeyboardInterrupt
        self.asked.append((config.name, config.init_from))
        folder = RunFolder(self.root / config.name)
        folder.path.mkdir(parents=True, exist_ok=True)
        identity = self.recorded or Identity("digest", CODE, versions(), device_text())
        write_json(folder.identity_file, asdict(identity))
        write_result(folder, "digest", result_of(0.5 + config.seed / 10))
        return folder


@pytest.fixture
def launcher(tmp_path, monkeypatch):
    """The digest of the numeric code is fixed, because computing it takes longer than everything else here."""
    monkeypatch.setattr("vision_transfer.tasks.study.runs.code_digest", lambda: CODE)
    return Launcher(tmp_path / "runs")


def planned(name, seed=0, start=None, compared=True, **labels):
    config = with_stages(default_config(), head=stage())
    config.name, config.seed = name, seed
    return PlannedRun(name, checked(config), labels | {"seed": seed}, start, compared)


@pytest.fixture
def study():
    """A pretraining and two runs that start from it."""
    return Study(
        "small",
        (
            planned("base", compared=False),
            planned("a", 0, "base", method="features"),
            planned("b", 1, "base", method="features"),
        ),
    )


@pytest.fixture
def read_record():
    return lambda folder: json.loads((folder / "runs.json").read_text(encoding="utf-8"))

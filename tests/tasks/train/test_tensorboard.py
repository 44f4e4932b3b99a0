"""Event files for TensorBoard hold the records of `metrics.jsonl`, each once; without tensorboardX a run goes on."""

import importlib.util
import struct

import pytest

from vision_transfer.config import Config, digested
from vision_transfer.config.schema import LogConfig
from vision_transfer.tasks.train.tensorboard import can_write_events, event_files

RECORDS = [
    {
        "stage": "head",
        "epoch": epoch,
        "train_loss": 1 / epoch,
        "train_accuracy": 0.5,
        "validation_loss": None if epoch == 2 else 2 / epoch,
        "validation_accuracy": 0.25,
        "lr": 1e-3,
        "seconds": 1.0,
    }
    for epoch in (1, 2, 3)
]


def scalars(folder):
    """All scalars of a folder's event files: (tag, step) → values."""
    event_pb2 = pytest.importorskip(
        "tensorboardX.proto.event_pb2", reason="tensorboardX is not installed (extra [log])"
    )
    found = {}
    for file in folder.glob("events.*"):
        content = file.read_bytes()
        while content:
            # TFRecord: length, its checksum, the event, its checksum
            (length,) = struct.unpack("<Q", content[:8])
            event = event_pb2.Event.FromString(content[12 : 12 + length])
            content = content[16 + length :]
            for value in event.summary.value:
                found.setdefault((value.tag, event.step), []).append(value.simple_value)
    return found


def test_each_record_is_there_once(tmp_path):
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed (extra [log])")
    for _ in range(2):  # as a run that was interrupted and went on
        with event_files(tmp_path / "head") as write:
            for count in (1, 2, 3):
                write(RECORDS[:count])
    train, validation = scalars(tmp_path / "head" / "train"), scalars(tmp_path / "head" / "validation")
    assert {tag for tag, _ in train} == {"loss", "accuracy", "lr", "seconds"}
    for record in RECORDS:
        assert train["loss", record["epoch"]] == [pytest.approx(record["train_loss"])]
    assert sorted(step for tag, step in validation if tag == "loss") == [1, 3]
    assert sorted(step for tag, step in validation if tag == "accuracy") == [1, 2, 3]


def test_a_stage_that_was_finished_keeps_its_files(tmp_path):
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed (extra [log])")
    with event_files(tmp_path) as write:
        write(RECORDS)
    before = scalars(tmp_path / "train")
    with event_files(tmp_path):
        pass
    assert scalars(tmp_path / "train") == before


def test_without_the_library_a_line_is_said(screen, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert can_write_events(True, screen) is False
    assert "tensorboardX is not installed" in screen.console.file.getvalue()
    assert can_write_events(False, screen) is False


def test_logging_is_not_part_of_what_a_run_is():
    assert digested(Config(log=LogConfig(tensorboard=True, report=False))) == digested(Config())
    assert Config().log.tensorboard is False

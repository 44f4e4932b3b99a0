"""Trackers have each epoch of a run once, its config, its test and its files; they never cost a run."""

import importlib.machinery
import importlib.util
import json
import re
import signal
import struct

import pytest

from vision_transfer.config import (
    Config,
    digested,
)
from vision_transfer.config.schema import LogConfig
from vision_transfer.errors import UserError
from vision_transfer.runs.prepare import RunOptions
from vision_transfer.runtime.preemption import Stopped, StopSignal
from vision_transfer.tasks.train import trackers
from vision_transfer.tasks.train.task import train
from vision_transfer.tasks.train.trackers import Session, Tracker, check_tracker

# Two stages of two epochs.
RECORDS = 4


def installed(name):
    module = trackers.TRACKERS[name][0]
    return pytest.param(
        name, marks=pytest.mark.skipif(importlib.util.find_spec(module) is None, reason=f"{module} is not installed")
    )


@pytest.fixture
def local_store(tmp_path, monkeypatch):
    """All trackers write into a folder, and none looks for a server."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return tmp_path


def event_file_values(folder):
    """All scalars of event files: (STAGE/SPLIT/tag, step) → values."""
    from tensorboardX.proto import event_pb2

    found = {}
    for file in folder.rglob("events.*"):
        content = file.read_bytes()
        while content:
            # TFRecord: length, its checksum, the event, its checksum
            (length,) = struct.unpack("<Q", content[:8])
            event = event_pb2.Event.FromString(content[12 : 12 + length])
            content = content[16 + length :]
            for value in event.summary.value:
                name = f"{file.parent.relative_to(folder).as_posix()}/{value.tag}"
                found.setdefault((name, event.step), []).append(value.simple_value)
    return found


def mlflow_values(run_id):
    from mlflow import MlflowClient

    client, found = MlflowClient(), {}
    run = client.get_run(run_id)
    for name in run.data.metrics:
        for value in client.get_metric_history(run_id, name):
            found.setdefault((name, value.step), []).append(value.value)
    return (
        run,
        found,
        {file.path for file in client.list_artifacts(run_id)}
        | {file.path for file in client.list_artifacts(run_id, "figures")},
    )


def logged_records(log, block=32768, header=7):
    """The records of a log in LevelDB's format: in blocks, after a checksum (4 bytes), a length (2) and a type (1)."""
    place, parts = header, []
    while place + header <= len(log):
        if block - place % block < header:  # padding
            place += block - place % block
        length, kind = struct.unpack("<HB", log[place + 4 : place + header])
        parts.append(log[place + header : place + header + length])
        place += header + length
        if kind in (1, 4):  # the whole, or the last part
            yield b"".join(parts)
            parts = []


def wandb_values(folder):
    """Of the transaction logs of offline runs: (name, step) → values, the config, and the names of artifacts."""
    import wandb
    from wandb.proto import wandb_internal_pb2

    wandb.teardown()  # ends the process that writes the logs
    found, config, artifacts, ids = {}, {}, set(), set()
    for file in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        for content in logged_records(file.read_bytes()):
            record = wandb_internal_pb2.Record.FromString(content)
            if record.HasField("run"):
                ids.add(record.run.run_id)
                config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
            if record.HasField("history"):
                values = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
                for name, value in values.items():
                    found.setdefault((name, record.history.step.num), []).append(json.loads(value))
            if record.HasField("summary"):
                for item in record.summary.update:
                    found[item.key or "/".join(item.nested_key), None] = [json.loads(item.value_json)]
            if record.HasField("request") and record.request.HasField("log_artifact"):
                artifacts |= {entry.path for entry in record.request.log_artifact.artifact.manifest.contents}
            if record.HasField("artifact"):
                artifacts |= {entry.path for entry in record.artifact.manifest.contents}
    return found, config, artifacts, ids


def config_and_files(name, folder):
    """The text of the config that a tracker has, and the names of its files."""
    if name == "tensorboard":
        content = b"".join(file.read_bytes() for file in (folder.path / "tensorboard" / "run").iterdir())
        return content.decode("latin-1"), set(re.findall(r"figures/\w+", content.decode("latin-1")))
    if name == "wandb":
        _, config, files, ids = wandb_values(folder.path)
        assert ids == {json.loads(folder.tracker_file.read_text())["id"]}
        return json.dumps(config), files
    run, _, files = mlflow_values(json.loads(folder.tracker_file.read_text())["id"])
    assert run.info.status == "FINISHED"
    return json.dumps(run.data.params), files


def sent(name, folder):
    """What a tracker has of a run."""
    if name == "tensorboard":
        return event_file_values(folder.path / "tensorboard")
    if name == "wandb":
        return wandb_values(folder.path)[0]
    return mlflow_values(json.loads(folder.tracker_file.read_text())["id"])[1]


@pytest.mark.parametrize("name", [installed(name) for name in trackers.TRACKERS])
def test_a_resumed_run_continues_at_its_tracker(name, small, local_store, screen, monkeypatch):
    stop, log = StopSignal(), Session.log

    def log_and_stop(session, records):
        log(session, records)
        stop.received = signal.SIGTERM

    with monkeypatch.context() as patch:
        patch.setattr(Session, "log", log_and_stop)
        with pytest.raises(Stopped):
            train(small(name), RunOptions(local_store / "run", local_store / "cache", stop=stop), screen)
    first_id = json.loads((local_store / "run" / "tracker.json").read_text())
    assert first_id["logged"] == 1
    folder = train(small(name), RunOptions(local_store / "run", local_store / "cache"), screen)
    assert json.loads(folder.tracker_file.read_text()) == first_id | {"logged": RECORDS}
    assert "failed" not in screen.console.file.getvalue()
    found = sent(name, folder)
    for step, line in enumerate(folder.metrics_file.read_text().splitlines(), start=1):
        record = json.loads(line)
        for split in ("train", "validation"):
            for metric in ("loss", "accuracy"):
                expected = pytest.approx(record[f"{split}_{metric}"], rel=1e-6)
                assert found[f"{record['stage']}/{split}/{metric}", step] == [expected]
    test = folder.result()["test"]
    final = {place[0]: values[-1] for place, values in found.items()}
    assert final["test/accuracy"] == pytest.approx(test["accuracy"])
    assert [final["test/accuracy_low"], final["test/accuracy_high"]] == pytest.approx(test["accuracy_ci95"])
    # A finished run sends nothing more.
    train(small(name), RunOptions(local_store / "run", local_store / "cache"), screen)
    assert sent(name, folder) == found
    config, files = config_and_files(name, folder)
    assert "first" in config and "60" in config
    assert {"curves", "confusion"} <= {file.partition(".")[0].rpartition("/")[2] for file in files}
    assert name == "tensorboard" or {"report.html", "config.json", "result.json"} <= files


def test_metrics_of_the_user_s_own_are_sent_too():
    record = {"stage": "head", "epoch": 1, "train_loss": 0.5, "train_accuracy": 0.75, "lr": 0.1, "seconds": 2}
    record |= {"validation_loss": None, "validation_accuracy": 0.5, "validation_recall_at_2": 0.25}
    assert trackers.record_metrics(record) == {
        "head/train/loss": 0.5,
        "head/train/accuracy": 0.75,
        "head/train/lr": 0.1,
        "head/train/seconds": 2.0,
        "head/validation/accuracy": 0.5,
        "head/validation/recall_at_2": 0.25,
    }
    test = {"accuracy": 0.5, "accuracy_ci95": [0.25, 0.75], "balanced_accuracy": 0.5, "loss": 1.0}
    assert trackers.test_metrics({"test": test | {"own": {"recall_at_2": 0.75}}})["test/recall_at_2"] == 0.75


def test_a_failure_in_the_middle_is_one_warning(small, tmp_path, screen, monkeypatch):
    def fail(step, metrics):
        raise ConnectionError("no route to host")

    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: json.__spec__ if name == "wandb" else find_spec(name, *more)
    )
    monkeypatch.setitem(
        trackers.TRACKERS, "wandb", ("wandb", lambda start: Tracker("1", fail, lambda metrics, files: None))
    )
    folder = train(small("wandb"), RunOptions(tmp_path / "run", tmp_path / "cache"), screen)
    assert folder.result() is not None
    said = screen.console.file.getvalue()
    assert said.count("config.log.tracker: wandb failed (ConnectionError: no route to host)") == 1


@pytest.mark.parametrize("name", trackers.TRACKERS)
def test_a_missing_library_is_an_error_before_training(name, small, monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=rf"config\.log\.tracker: {name} needs .*not installed: pip install "):
        check_tracker(small(name))
    # A folder of that name in the current folder is no library.
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: importlib.machinery.ModuleSpec(name, None))
    with pytest.raises(UserError, match="not installed"):
        check_tracker(small(name))
    check_tracker(small("none"))


def test_tracking_is_not_part_of_what_a_run_is():
    assert digested(Config(log=LogConfig(tracker="mlflow", report=False))) == digested(Config())
    assert Config().log.tracker == "none"

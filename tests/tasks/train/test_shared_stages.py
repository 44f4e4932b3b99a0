"""Stages that runs share: those that `--reuse` goes on with stay with their run."""

import json
import signal
import threading

import pytest

from vision_transfer.runs.prepare import RunOptions
from vision_transfer.runs.shared_stages import shared_stage
from vision_transfer.runtime import files
from vision_transfer.runtime.preemption import Stopped, StopSignal
from vision_transfer.tasks.train.task import train
from vision_transfer.tasks.train.trackers import Session


@pytest.fixture
def begin(small, screen, monkeypatch):
    """Trains for an epoch and stops."""

    def train_an_epoch(*place, **options):
        stop = StopSignal()

        def stop_after_an_epoch(session, records):
            stop.received = signal.SIGTERM

        with monkeypatch.context() as patch:
            patch.setattr(Session, "log", stop_after_an_epoch)
            with pytest.raises(Stopped):
                train(small(), RunOptions(*place, stop=stop, **options), screen)

    return train_an_epoch


@pytest.mark.parametrize(("reuse", "shared"), [(False, 2), (True, 0)])
def test_a_stage_begun_before_is_not_shared_by_reuse(small, tmp_path, screen, begin, reuse, shared):
    store, place = tmp_path / "shared", (tmp_path / "run", tmp_path / "cache")
    begin(*place)
    train(small(), RunOptions(*place, reuse=reuse, shared_stages=store), screen)
    assert len(list(store.glob("*/last"))) == shared


def test_a_stage_that_other_code_began_is_not_shared_later_either(small, tmp_path, screen, begin):
    """One `--reuse` makes today's code that of the run; the plain command after it finds no difference."""
    store, place = tmp_path / "shared", (tmp_path / "run", tmp_path / "cache")
    begin(*place)
    file = place[0] / "identity.json"
    identity = json.loads(file.read_text())
    file.write_text(json.dumps(identity | {"code": "of last year"}))
    begin(*place, reuse=True)
    assert [one["code"] for one in json.loads(file.read_text())["earlier"]] == ["of last year"]
    train(small(), RunOptions(*place, shared_stages=store), screen)
    assert len(json.loads(file.read_text())["earlier"]) == 1
    assert not list(store.glob("*/last"))


def test_waiting_for_another_that_trains_the_stage_is_said(tmp_path, screen, monkeypatch):
    monkeypatch.setattr(files, "SECONDS_BEFORE_SAYING_THAT_IT_WAITS", 0.1)

    def take():
        with shared_stage(tmp_path, "key", tmp_path / "run/head", screen):
            pass

    with shared_stage(tmp_path, "key", tmp_path / "other/head", screen):
        waiting = threading.Thread(target=take)
        waiting.start()
        waiting.join(0.5)
        assert waiting.is_alive()
        said = " ".join(screen.console.file.getvalue().split())
        assert "Another process is training the stage head, which this run shares; waiting for it." in said
    waiting.join(20)
    assert not waiting.is_alive()


def test_a_run_that_begins_shares_its_stages(small, tmp_path, screen):
    for name in ("first", "second"):
        train(small(), RunOptions(tmp_path / name, tmp_path / "cache", shared_stages=tmp_path / "shared"), screen)
    assert "was trained by a run that shares it" in screen.console.file.getvalue()

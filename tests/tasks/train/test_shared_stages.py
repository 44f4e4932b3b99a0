"""Stages that runs share: those that `--reuse` goes on with stay with their run."""

import signal

import pytest

from vision_transfer.runs.prepare import RunOptions
from vision_transfer.runtime.preemption import Stopped, StopSignal
from vision_transfer.tasks.train.task import train
from vision_transfer.tasks.train.trackers import Session


@pytest.mark.parametrize(("reuse", "shared"), [(False, 2), (True, 0)])
def test_a_stage_begun_before_is_not_shared_by_reuse(small, tmp_path, screen, monkeypatch, reuse, shared):
    stop, store, place = StopSignal(), tmp_path / "shared", (tmp_path / "run", tmp_path / "cache")

    def stop_after_an_epoch(session, records):
        stop.received = signal.SIGTERM

    with monkeypatch.context() as patch:
        patch.setattr(Session, "log", stop_after_an_epoch)
        with pytest.raises(Stopped):
            train(small(), RunOptions(*place, stop=stop), screen)
    train(small(), RunOptions(*place, reuse=reuse, shared_stages=store), screen)
    assert len(list(store.glob("*/last"))) == shared


def test_a_run_that_begins_shares_its_stages(small, tmp_path, screen):
    for name in ("first", "second"):
        train(small(), RunOptions(tmp_path / name, tmp_path / "cache", shared_stages=tmp_path / "shared"), screen)
    assert "was trained by a run that shares it" in screen.console.file.getvalue()

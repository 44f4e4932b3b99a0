"""Time and memory are attributed to the activity that took them."""

import time

from vision_transfer.runtime import timer as timer_module
from vision_transfer.runtime.timer import Timer, process_peak_bytes


def test_inner_time_is_not_counted_for_the_outer(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    timer = Timer()
    with timer.measures("train"):
        now[0] = 1.0
        with timer.measures("features"):
            now[0] = 4.0
        now[0] = 6.0
    assert timer.seconds == {"train": 3.0, "features": 3.0}


def test_peak_memory_counts_for_the_activity_that_raised_it(monkeypatch):
    peak = [100]
    monkeypatch.setattr(timer_module, "process_peak_bytes", lambda: peak[0])
    timer = Timer()
    with timer.measures("data"):
        peak[0] = 300
    with timer.measures("train"), timer.measures("features"):
        peak[0] = 900
    with timer.measures("evaluate"):
        pass
    assert timer.peak_bytes == {"data": 300, "features": 900}


def test_the_peak_grows_with_allocated_memory():
    before = process_peak_bytes()
    held = bytearray(before + 50_000_000)
    assert process_peak_bytes() >= len(held)

"""The flag `--launcher`, a worker's share of the machine, and the end of workers."""

import os
import signal
import subprocess
import sys

import pytest

from vision_transfer.errors import UserError
from vision_transfer.runtime.preemption import Stopped
from vision_transfer.tasks.ablation import launchers
from vision_transfer.tasks.ablation.launchers import read_launcher, share_of_cores, worker_environment
from vision_transfer.tasks.ablation.sweep import SweepFolder


@pytest.mark.parametrize(
    ("text", "expected"),
    [(None, ("", 1)), ("processes:3", ("processes", 3)), ("slurm", ("slurm", 1))],
)
def test_a_launcher_is_read(text, expected):
    assert read_launcher(text) == expected


@pytest.mark.parametrize("text", ["threads:2", "processes:0", "processes:two", "slurm:-1"])
def test_another_launcher_is_refused(text):
    with pytest.raises(UserError, match="allowed are processes:N"):
        read_launcher(text)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_workers_share_all_cores(monkeypatch, count):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {2, 3, 5, 7, 11})
    parts = [share_of_cores(place, count) for place in range(count)]
    assert sorted(core for part in parts for core in part) == [2, 3, 5, 7, 11]
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_more_workers_than_cores_have_one_each_in_turn(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    assert [share_of_cores(place, 3) for place in range(3)] == [[0], [1], [0]]


def test_a_worker_has_as_many_devices_as_the_command_and_one_accelerator(monkeypatch, tmp_path):
    monkeypatch.setattr(launchers, "cpu_devices", lambda: 4)
    own = worker_environment({"CUDA_VISIBLE_DEVICES": "4,6", "XLA_FLAGS": "--xla_other=1"}, 3, 4)
    assert own["CUDA_VISIBLE_DEVICES"] == "6"
    assert own["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false", "two workers share it"
    assert own["XLA_FLAGS"] == "--xla_other=1 --xla_force_host_platform_device_count=4"
    chosen = {"XLA_FLAGS": "--xla_force_host_platform_device_count=1"}
    assert worker_environment(chosen, 0, 1, tmp_path) == chosen
    for name in ("0000:01:00.0", "0000:41:00.0"):
        (tmp_path / name).mkdir()
    assert [worker_environment({}, place, 2, tmp_path)["CUDA_VISIBLE_DEVICES"] for place in (0, 1)] == ["0", "1"]
    hidden = worker_environment({"CUDA_VISIBLE_DEVICES": ""}, 0, 2, tmp_path)
    assert hidden["CUDA_VISIBLE_DEVICES"] == "" and "XLA_PYTHON_CLIENT_PREALLOCATE" not in hidden


@pytest.fixture
def start(monkeypatch):
    """Workers that run the given lines of Python instead, in turn; returns the started ones."""
    started = []

    def replace(*lines):
        def worker(folder, place, count, log):
            line = lines[min(len(started), len(lines) - 1)]
            process = subprocess.Popen([sys.executable, "-c", line], stdout=log, stderr=log)
            started.append(process)
            return process

        monkeypatch.setattr(launchers, "_start", worker)
        monkeypatch.setattr(launchers, "SECONDS_BETWEEN_CHECKS", 0.02)
        return started

    return replace


KILLED, DONE = "import os; os.kill(os.getpid(), 9)", "pass"


def test_a_killed_worker_is_replaced(start, tmp_path, screen):
    started = start(KILLED, DONE)
    launchers.run_in_processes(SweepFolder(tmp_path), 1, lambda: 0, screen)
    assert [process.returncode for process in started] == [-signal.SIGKILL, 0]


def test_a_worker_that_reports_an_error_ends_the_sweep_with_it(start, tmp_path, screen):
    start("raise SystemExit('the disk is full')")
    with pytest.raises(UserError, match="the disk is full"):
        launchers.run_in_processes(SweepFolder(tmp_path), 1, lambda: 0, screen)


def test_workers_that_are_killed_again_and_again_end_the_sweep(start, tmp_path, screen, monkeypatch):
    monkeypatch.setattr(launchers, "MOST_DEATHS_IN_A_ROW", 2)
    started = start(KILLED)
    with pytest.raises(UserError, match="memory may be too small"):
        launchers.run_in_processes(SweepFolder(tmp_path), 1, lambda: 0, screen)
    assert len(started) == 3


def test_a_command_that_is_stopped_ends_its_workers(start, tmp_path, screen):
    started = start("import time; time.sleep(60)")

    def stopped():
        if started and started[0].poll() is None:
            raise Stopped(signal.SIGTERM)
        return 0

    with pytest.raises(Stopped):
        launchers.run_in_processes(SweepFolder(tmp_path), 1, stopped, screen)
    assert started[0].wait(1) == -signal.SIGTERM


def test_a_worker_that_was_asked_to_stop_is_replaced(start, tmp_path, screen):
    """It leaves with the status of the signal, as if killed by it."""
    started = start("import os; os._exit(143)", DONE)
    launchers.run_in_processes(SweepFolder(tmp_path), 1, lambda: 0, screen)
    assert len(started) == 2 and "killed by SIGTERM" in screen.console.file.getvalue()

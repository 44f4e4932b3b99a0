"""Jobs through submitit's local executor: they do the work, and preempted or killed ones are submitted again.

The worker is replaced by a script that counts how often it was started; submitit itself is real.
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from vision_transfer.config import default_config
from vision_transfer.errors import UserError
from vision_transfer.tasks.ablation import slurm
from vision_transfer.tasks.ablation.sweep import SweepFolder

pytest.importorskip("submitit", reason="submitit is not installed (extra [slurm])")

# Waits after its first start if the file `wait` exists, and ends with the status in the file `status`.
SCRIPT = """\
import os, pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
begun = len(list(folder.glob("begun-*")))
(folder / f"begun-{begun}-{os.getpid()}").write_text(str(os.getppid()))
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
if begun == 0 and (folder / "wait").exists():
    time.sleep(60)
sys.exit(int(eval((folder / "status").read_text())))
"""


@pytest.fixture
def jobs(tmp_path, monkeypatch):
    """A sweep's folder whose workers are the script; a function that runs it in one job."""
    script = tmp_path / "fake_worker.py"
    script.write_text(SCRIPT, encoding="utf-8")
    sweep = tmp_path / "sweep"
    sweep.mkdir()
    (sweep / "status").write_text("0")
    monkeypatch.setattr(slurm, "SECONDS_BETWEEN_CHECKS", 0.1)
    monkeypatch.setattr(slurm, "worker_command", lambda folder: [sys.executable, str(script), str(folder)])
    settings = default_config().slurm
    settings.cluster = "local"

    def run(screen, **changes):
        settings.update(changes)
        slurm.run_in_jobs(SweepFolder(sweep), 1, settings, lambda: 0, screen)

    return sweep, run


def begun(sweep):
    return sorted(sweep.glob("begun-*"))


def test_a_job_works_until_the_sweep_is_done(jobs, screen):
    sweep, run = jobs
    run(screen)
    assert len(begun(sweep)) == 1


@pytest.mark.parametrize("killed_by", [signal.SIGUSR2, signal.SIGKILL], ids=["preempted", "killed"])
def test_a_job_that_ended_midway_is_requeued_and_finishes(jobs, screen, killed_by):
    sweep, run = jobs
    (sweep / "wait").touch()

    def kill():
        while not begun(sweep):
            time.sleep(0.05)
        time.sleep(0.3)
        os.kill(int(begun(sweep)[0].read_text()), killed_by)

    killer = threading.Thread(target=kill)
    killer.start()
    run(screen)
    killer.join()
    assert len(begun(sweep)) == 2


def test_an_error_of_a_worker_is_that_of_the_command(jobs, screen):
    sweep, run = jobs
    (sweep / "status").write_text("2")
    with pytest.raises(UserError, match="its output is in"):
        run(screen)
    assert Path(sweep / "jobs").is_dir()


def test_an_error_of_one_of_two_workers_is_that_of_the_command(jobs, screen):
    """Each worker of a job ends by itself, and one accelerator is its own."""
    sweep, run = jobs
    (sweep / "status").write_text("os.environ['CUDA_VISIBLE_DEVICES']")
    with pytest.raises(UserError, match=r"its output is in .*_1_log\.err"):
        run(screen, tasks_per_node=2, gpus=2)
    assert len(begun(sweep)) == 2


def test_one_machine_has_one_node(jobs, screen):
    with pytest.raises(UserError, match=r"slurm\.nodes=2"):
        jobs[1](screen, nodes=2)


@pytest.mark.parametrize("seconds", [0, 2 * slurm.OLD_SECONDS], ids=["waiting", "killed"])
def test_a_worker_that_does_not_see_the_lock_of_the_command_ends(tmp_path, seconds):
    """The lock is held on another node, where it does not reach this one; a command that was killed holds none."""
    folder = SweepFolder(tmp_path)
    slurm.check_locks(folder)
    touched = tmp_path / slurm.ALIVE
    touched.touch()
    with folder.lock(slurm.ALIVE):
        slurm.check_locks(folder)
    os.utime(touched, (time.time() - seconds,) * 2)
    if seconds:
        slurm.check_locks(folder)
    else:
        with pytest.raises(UserError, match="do not hold between"):
            slurm.check_locks(folder)

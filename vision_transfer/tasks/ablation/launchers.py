"""Launches the workers of a sweep: this process, several processes, or the jobs of a cluster (`slurm.py`)."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TypeVar

from vision_transfer.errors import UserError
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.jax_setup import HOST_DEVICES_FLAG, cpu_devices
from vision_transfer.tasks.ablation.sweep import SweepFolder

PROCESSES, SLURM = "processes", "slurm"
MODULE = "vision_transfer.tasks.ablation.worker"
SECONDS_BETWEEN_CHECKS = 0.5
# A process that ends by a signal, or as if by it, has this status plus the signal's number.
FIRST_STATUS_OF_SIGNALS = 128
# Slightly more than a worker takes at most to save and end (`preemption.GRACE_SECONDS`).
SECONDS_TO_END = 10.0
# If so many workers in a row die and no run is finished in between, something kills each of them.
MOST_DEATHS_IN_A_ROW = 20
GPU_VARIABLE, PREALLOCATE_VARIABLE = "CUDA_VISIBLE_DEVICES", "XLA_PYTHON_CLIENT_PREALLOCATE"
# NVIDIA's driver has a folder for each GPU there.
GPUS = Path("/proc/driver/nvidia/gpus")
Worker = TypeVar("Worker")


def read_launcher(text: str | None) -> tuple[str, int]:
    """Kind and number of workers from the value of `--launcher`; the kind is empty for this process only.

    Raises:
        UserError: it is not a launcher.
    """
    kind, _, number = (text or "").partition(":")
    number = number or "1"
    if text and (kind not in (PROCESSES, SLURM) or not number.isdecimal() or int(number) < 1):
        raise UserError(
            f"--launcher={text}: allowed are {PROCESSES}:N and {SLURM}:N with a number of workers; omit the flag to "
            "use this process only"
        )
    return kind, int(number)


def run_in_processes(folder: SweepFolder, count: int, finished: Callable[[], int], screen: Screen) -> None:
    """Starts workers, each with its share of the cores (and an accelerator), and waits until all have ended.

    A worker that is killed is replaced; its run resumes from the checkpoint. `finished` returns the number of finished
    runs; it is called often, so it may report them.

    Raises:
        UserError: a worker ends with an error, or workers are killed again and again.
        Stopped: this process was asked to stop; the workers have saved their work.
    """
    logs = folder.path / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    files = [logs / f"worker_{place}.txt" for place in range(count)]
    with ExitStack() as stack:
        streams = [stack.enter_context(file.open("ab")) for file in files]

        def restarted(place: int, status: int, deaths: int) -> subprocess.Popen[bytes]:
            if 0 < status < FIRST_STATUS_OF_SIGNALS:
                raise UserError(_error_text(files[place], place, status))
            # a worker that is asked to stop saves its work, and leaves with the status of the signal
            killer = signal.Signals(-status if status < 0 else status - FIRST_STATUS_OF_SIGNALS).name
            if deaths > MOST_DEATHS_IN_A_ROW:
                raise UserError(
                    f"{deaths} workers in a row were killed without finishing a run, the last by {killer}; memory may "
                    "be too small, so try fewer workers"
                )
            screen.say(f"Worker {place} was killed by {killer}; starting another one.", style="yellow")
            return _start(folder.path, place, count, streams[place])

        workers = [_start(folder.path, place, count, streams[place]) for place in range(count)]
        try:
            keep_working(workers, subprocess.Popen.poll, restarted, finished, SECONDS_BETWEEN_CHECKS)
        finally:
            _end(workers)


def keep_working(
    workers: list[Worker],
    status: Callable[[Worker], int | None],
    restarted: Callable[[int, int, int], Worker],
    finished: Callable[[], int],
    seconds: float,
) -> None:
    """Waits until all workers have succeeded, and replaces those that did not in place.

    `status` of a worker is None while it runs, 0 after success, positive after an error, negative if it was killed.
    `restarted` gets a worker's place, its status, and how many workers have ended without success since a run was last
    finished; it returns a new worker or raises.
    """
    deaths, before = 0, finished()
    while any(status(worker) != 0 for worker in workers):
        time.sleep(seconds)
        done = finished()
        for place, worker in enumerate(workers):
            ended = status(worker)
            if ended:
                deaths, before = (deaths + 1 if done == before else 1), done
                workers[place] = restarted(place, ended, deaths)
    finished()


def _start(folder: Path, place: int, count: int, log: IO[bytes]) -> subprocess.Popen[bytes]:
    cores = ",".join(map(str, share_of_cores(place, count)))
    command = [sys.executable, "-m", MODULE, str(folder.absolute()), cores, str(os.getpid())]
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=worker_environment(os.environ, place, count)
    )


def share_of_cores(place: int, count: int) -> list[int]:
    """The cores of a worker: an equal part of those that this process may run on, at least one."""
    if not hasattr(os, "sched_getaffinity"):
        return []
    cores = sorted(os.sched_getaffinity(0))
    if count > len(cores):
        return [cores[place % len(cores)]]
    return cores[place * len(cores) // count : (place + 1) * len(cores) // count]


def worker_environment(
    environment: "os._Environ[str] | dict[str, str]", place: int, workers: int, gpus: Path = GPUS
) -> dict[str, str]:
    """The environment of a worker: as many CPU devices as this process has, and one of the GPUs.

    These are the named ones, else those that the driver lists: a library that counts them would open them. A run's
    numbers depend on the number of devices; this way they do not depend on the number of workers.
    """
    own = dict(environment)
    flags = own.get("XLA_FLAGS", "")
    if HOST_DEVICES_FLAG not in flags:
        own["XLA_FLAGS"] = f"{flags} --{HOST_DEVICES_FLAG}={cpu_devices()}".strip()
    found = [str(number) for number, _ in enumerate(gpus.iterdir())] if gpus.is_dir() else []
    names = [name for name in own.get(GPU_VARIABLE, ",".join(found)).split(",") if name]
    if names:
        own[GPU_VARIABLE] = names[place % len(names)]
    if 0 < len(names) < workers:
        own.setdefault(PREALLOCATE_VARIABLE, "false")  # else the first one on a GPU takes most of its memory
    return own


def _end(workers: Sequence[subprocess.Popen[bytes]]) -> None:
    """Asks workers to save and end, and kills those that do not end in time."""
    for worker in workers:
        if worker.poll() is None:
            worker.terminate()
    deadline = time.monotonic() + SECONDS_TO_END
    for worker in workers:
        try:
            worker.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()


def _error_text(log: Path, place: int, status: int) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    last = lines[-1] if lines else "no output"
    return f"worker {place} ended with status {status}: {last}\nIts output is in {log}; the same command resumes"

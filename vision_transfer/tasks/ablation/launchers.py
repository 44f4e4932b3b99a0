"""Workers of a sweep: in this process, in several beside it, or in jobs of a cluster."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from rich.markup import escape

from vision_transfer.errors import UserError
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.jax_setup import HOST_DEVICES_FLAG, cpu_devices
from vision_transfer.tasks.ablation.sweep import SweepFolder

PROCESSES, SLURM = "processes", "slurm"
MODULE = "vision_transfer.tasks.ablation.worker"
SECONDS_BETWEEN_LOOKS = 0.5
# As `stopping.GRACE_SECONDS`, and a little.
SECONDS_TO_END = 10.0
# Workers that die one after the other without a run being finished between: something kills each of them.
MOST_DEATHS_IN_A_ROW = 20
GPU_VARIABLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Launcher:
    """`--launcher`, read.

    Attributes:
        kind: empty for this process, `processes` or `slurm`.
        count: of workers.
    """

    kind: str = ""
    count: int = 1


def read_launcher(text: str | None) -> Launcher:
    """The launcher that a flag names.

    Raises:
        UserError: it names none.
    """
    if not text:
        return Launcher()
    kind, _, number = text.partition(":")
    if kind not in (PROCESSES, SLURM) or not (number or "1").isdecimal() or int(number or 1) < 1:
        raise UserError(
            f"--launcher={text}: allowed are {PROCESSES}:N and {SLURM}:N with a number of workers; leave it out for "
            "one process"
        )
    return Launcher(kind, int(number or 1))


def run_in_processes(folder: SweepFolder, count: int, finished: Callable[[], int], screen: Screen) -> None:
    """Starts workers, each with its share of the cores (and its accelerator), and waits for their end.

    One that dies is replaced; what it had begun goes on from its checkpoint.

    Args:
        folder: of the sweep, with its plan.
        count: of workers.
        finished: how many runs are finished; called often, and may say so.
        screen: says which worker died.

    Raises:
        UserError: workers end with an error, or die again and again.
        Stopped: this process was asked to stop; the workers have saved what they had.
    """
    folder.logs.mkdir(parents=True, exist_ok=True)
    with ExitStack() as files:
        logs = [files.enter_context((folder.logs / f"worker_{place}.txt").open("ab")) for place in range(count)]
        workers = [_start(folder.path, place, count, logs[place]) for place in range(count)]
        try:
            _watch(folder, workers, logs, finished, screen)
        finally:
            _end(workers)


def _watch(
    folder: SweepFolder,
    workers: list[subprocess.Popen[bytes]],
    logs: Sequence[IO[bytes]],
    finished: Callable[[], int],
    screen: Screen,
) -> None:
    deaths, before = 0, finished()
    while True:
        time.sleep(SECONDS_BETWEEN_LOOKS)
        done = finished()
        states = [worker.poll() for worker in workers]
        if all(state == 0 for state in states):
            return
        for place, state in enumerate(states):
            if state is None or state == 0:
                continue
            if state > 0:
                raise UserError(_ended_with(folder.logs / f"worker_{place}.txt", place, state))
            deaths, before = (deaths + 1 if done == before else 1), done
            if deaths > MOST_DEATHS_IN_A_ROW:
                raise UserError(
                    f"{deaths} workers were killed without a run being finished; the last by "
                    f"{signal.Signals(-state).name}. Too little memory? Try fewer workers"
                )
            name = signal.Signals(-state).name
            screen.say(escape(f"Worker {place} was ended by {name}; another takes its place."), style="yellow")
            workers[place] = _start(folder.path, place, len(workers), logs[place])


def _start(folder: Path, place: int, count: int, log: IO[bytes]) -> subprocess.Popen[bytes]:
    cores = ",".join(map(str, share_of_cores(place, count)))
    command = [sys.executable, "-m", MODULE, str(folder.absolute()), cores, str(os.getpid())]
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=worker_environment(os.environ, place)
    )


def share_of_cores(place: int, count: int) -> list[int]:
    """The cores of one of several workers: equal parts of those that this process may run on, at least one."""
    if not hasattr(os, "sched_getaffinity"):
        return []
    cores = sorted(os.sched_getaffinity(0))
    if count > len(cores):
        return [cores[place % len(cores)]]
    return cores[place * len(cores) // count : (place + 1) * len(cores) // count]


def worker_environment(environment: "os._Environ[str] | dict[str, str]", place: int) -> dict[str, str]:
    """The environment of a worker: as many devices of a CPU as here, and one of the accelerators that are named.

    A run's numbers depend on the number of devices; with this they do not depend on the number of workers.
    """
    own = dict(environment)
    flags = own.get("XLA_FLAGS", "")
    if HOST_DEVICES_FLAG not in flags:
        own["XLA_FLAGS"] = f"{flags} --{HOST_DEVICES_FLAG}={cpu_devices()}".strip()
    accelerators = [name for name in own.get(GPU_VARIABLE, "").split(",") if name]
    if accelerators:
        own[GPU_VARIABLE] = accelerators[place % len(accelerators)]
    return own


def _end(workers: Sequence[subprocess.Popen[bytes]]) -> None:
    """Asks workers to save and end, and ends those that do not."""
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


def _ended_with(log: Path, place: int, status: int) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    last = lines[-1] if lines else "it said nothing"
    return f"worker {place} ended with status {status}: {last}\nWhat it said is in {log}; the same command goes on"

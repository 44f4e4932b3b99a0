"""Workers, the processes that measure, as seen by the one that starts them; each has its own peak memory."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import vision_transfer
from vision_transfer.errors import UserError
from vision_transfer.runtime.jax_setup import environment_of_others

PACKAGE_PARENT = Path(vision_transfer.__file__).parents[1]
# The package's folder comes last on the path, so that it hides none of the interpreter's own libraries.
RUN_MODULE = "import runpy, sys; sys.path.append(sys.argv[1]); runpy.run_module(sys.argv[2], run_name='__main__')"
# Of the output of a process that failed.
LINES_SHOWN = 12
QUARTERS = 4


@dataclass(frozen=True)
class Worker:
    """A process with its work compiled and warm; `facts` is its first reply."""

    name: str
    process: subprocess.Popen[str]
    log: IO[str]
    facts: dict[str, Any]

    def run(self, times: int) -> float:
        """Does the work `times` times; returns the seconds of one."""
        return _ask(self.name, self.process, self.log, {"run": times})["seconds"] / times

    def end(self) -> dict[str, Any]:
        """Ends the process; returns its last facts, with `peak_memory_bytes`."""
        last = _ask(self.name, self.process, self.log, {"end": True})
        self.process.wait()
        return last


@contextmanager
def worker(name: str, module: str, request: Mapping[str, Any], python: str | None = None) -> Iterator[Worker]:
    """Runs a module that serves `request` in a process of its own, which ends with the context.

    Args:
        name: for messages.
        module: calls `protocol.serve`.
        request: its first line, as JSON values.
        python: interpreter of another library, which gets the environment without this program's own settings;
            default: this interpreter and environment.

    Raises:
        UserError: the interpreter does not start, or the process ended before it replied.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        try:
            process = subprocess.Popen(
                [python or sys.executable, "-c", RUN_MODULE, str(PACKAGE_PARENT), module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=None if python is None else environment_of_others(os.environ),
            )
        except OSError as error:
            raise UserError(
                f"config.benchmark.peer_python: {python!r} cannot be run ({error.strerror}); give the path of a Python "
                "interpreter"
            ) from error
        try:
            yield Worker(name, process, log, _ask(name, process, log, request))
        finally:
            process.kill()
            process.communicate()


def last_lines(log: IO[str]) -> list[str]:
    """The end of what a process that failed has printed."""
    log.seek(0)
    return log.read().strip().splitlines()[-LINES_SHOWN:]


@dataclass(frozen=True)
class Spread:
    """Median, quartiles, extremes and number of repeated measurements of one thing."""

    median: float
    first_quartile: float
    third_quartile: float
    lowest: float
    highest: float
    repeats: int


def spread(values: Sequence[float]) -> Spread:
    """Summarises at least one value."""
    first, _, third = (
        statistics.quantiles(values, n=QUARTERS, method="inclusive") if len(values) > 1 else (values[0],) * 3
    )
    return Spread(statistics.median(values), first, third, min(values), max(values), len(values))


def take_turns(workers: Mapping[str, Worker], repeats: int, seconds_per_repeat: float) -> dict[str, list[float]]:
    """Seconds of one run by worker and repeat.

    The first run of each worker is not counted; it determines how many runs fill `seconds_per_repeat`. Then every
    worker has one turn in each repeat. The order reverses from one repeat to the next, so that whatever slows the
    machine down for a while slows all of them.
    """
    times = {name: max(1, round(seconds_per_repeat / worker.run(1))) for name, worker in workers.items()}
    seconds: dict[str, list[float]] = {name: [] for name in workers}
    order = list(workers)
    for _ in range(repeats):
        for name in order:
            seconds[name].append(workers[name].run(times[name]))
        order.reverse()
    return seconds


def _ask(name: str, process: subprocess.Popen[str], log: IO[str], message: Mapping[str, Any]) -> dict[str, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps(message) + "\n")
        process.stdin.flush()
        reply = process.stdout.readline()
    except BrokenPipeError:
        reply = ""
    if reply:
        return json.loads(reply)
    status, printed = process.wait(), last_lines(log)
    if printed and printed[-1].startswith("ModuleNotFoundError"):
        raise UserError(
            f'benchmark: {name!r} cannot be measured: {printed[-1]}; pip install "vision_transfer[peers]", or name an '
            "interpreter that has it in config.benchmark.peer_python"
        )
    raise UserError(
        f"benchmark: the worker of {name!r} ended with status {status}; its last output was\n  " + "\n  ".join(printed)
    )

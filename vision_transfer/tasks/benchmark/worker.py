"""Workers, the processes that measure, as seen by the one that starts them; each has its own peak memory."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

import vision_transfer
from vision_transfer.errors import UserError
from vision_transfer.runtime.jax_setup import environment_of_others
from vision_transfer.runtime.program import install_extra

PACKAGE_PARENT = Path(vision_transfer.__file__).parents[1]
# The package's folder comes last on the path, so that it hides none of the interpreter's own libraries.
RUN_MODULE = "import runpy, sys; sys.path.append(sys.argv[1]); runpy.run_module(sys.argv[2], run_name='__main__')"
# Of the output of a process that failed.
LINES_SHOWN = 12


@dataclass
class Worker:
    """A process with its work compiled and warm; `facts` is its first reply."""

    name: str
    process: subprocess.Popen[str]
    log: IO[str]
    facts: dict[str, Any] = field(default_factory=dict)

    def run(self, times: int) -> float:
        """Does the work `times` times; returns the seconds of one."""
        return self.ask({"run": times})["seconds"] / times

    def end(self) -> dict[str, Any]:
        """Ends the process; returns its last facts, with `peak_memory_bytes`."""
        last = self.ask({"end": True})
        self.process.wait()
        return last

    def ask(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """The reply to a message.

        Raises:
            UserError: the process ended before it replied.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()
            reply = self.process.stdout.readline()
        except BrokenPipeError:
            reply = ""
        if reply:
            return json.loads(reply)
        status, printed = self.process.wait(), last_lines(self.log)
        if printed and printed[-1].startswith("ModuleNotFoundError"):
            raise UserError(
                f"benchmark: {self.name!r} cannot be measured: {printed[-1]}; {install_extra('peers')}, or "
                "name an interpreter that has it in config.benchmark.peer_python"
            )
        text = "\n  ".join(printed)
        raise UserError(
            f"benchmark: the worker of {self.name!r} ended with status {status}; its last output was\n  {text}"
        )


@contextmanager
def worker(
    name: str,
    module: str,
    request: Mapping[str, Any],
    python: str | None = None,
    variables: Mapping[str, str] | None = None,
) -> Iterator[Worker]:
    """Runs a module that serves `request` by `protocol.serve` in a process of its own, which ends with the context.

    The interpreter `python` of another library gets the environment without this program's own settings; default: this
    interpreter and environment. Both get the `variables`, too.

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
                env=(dict(os.environ) if python is None else environment_of_others(os.environ)) | dict(variables or {}),
            )
        except OSError as error:
            raise UserError(
                f"config.benchmark.peer_python: {python!r} cannot be run ({error.strerror}); give the path of a Python "
                "interpreter"
            ) from error
        try:
            started = Worker(name, process, log)
            started.facts = started.ask(request)
            yield started
        finally:
            process.kill()
            process.communicate()


def last_lines(log: IO[str]) -> list[str]:
    """The end of what a process that failed has printed."""
    log.seek(0)
    return log.read().strip().splitlines()[-LINES_SHOWN:]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, quartiles, extremes and number of repeated measurements of one thing, at least one."""
    lowest, first, median, third, highest = np.percentile(values, (0, 25, 50, 75, 100)).tolist()
    quartiles = {"first_quartile": first, "median": median, "third_quartile": third}
    return quartiles | {"lowest": lowest, "highest": highest, "repeats": len(values)}


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

"""Processes that measure, as seen by the one that asks; each has its own peak memory."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import vision_transfer
from vision_transfer.errors import UserError

PACKAGE_PARENT = Path(vision_transfer.__file__).parents[1]
# The package's folder comes last on the path: the interpreter's own libraries must not be hidden by ours.
RUN_MODULE = "import runpy, sys; sys.path.append(sys.argv[1]); runpy.run_module(sys.argv[2], run_name='__main__')"
# Of what a failed process printed.
LINES_SHOWN = 12


@dataclass(frozen=True)
class Worker:
    """A process with its work compiled and warm.

    Attributes:
        name: for messages.
        facts: of its first reply.
    """

    name: str
    facts: dict[str, Any]
    _process: subprocess.Popen[str]
    _log: IO[str]

    def run(self, times: int) -> float:
        """Does the work so many times; returns the seconds of one."""
        return _ask(self.name, self._process, self._log, {"run": times})["seconds"] / times

    def end(self) -> dict[str, Any]:
        """Ends the process; returns its last facts, with `peak_memory_bytes`."""
        last = _ask(self.name, self._process, self._log, {"end": True})
        self._process.wait()
        return last


@contextmanager
def worker(
    name: str,
    module: str,
    request: Mapping[str, Any],
    python: str = sys.executable,
    env: Mapping[str, str] | None = None,
) -> Iterator[Worker]:
    """Runs a module in a process of its own on a request; the process is gone afterwards.

    Raises:
        UserError: the interpreter cannot be run, or the process ended before it answered.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        try:
            process = subprocess.Popen(
                [python, "-c", RUN_MODULE, str(PACKAGE_PARENT), module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=None if env is None else dict(env),
            )
        except OSError as error:
            raise UserError(
                f"config.benchmark.peer_python: {python!r} cannot be run ({error.strerror}); give the path of a Python "
                "interpreter"
            ) from error
        try:
            yield Worker(name, _ask(name, process, log, request), process, log)
        finally:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()


def _ask(name: str, process: subprocess.Popen[str], log: IO[str], message: Mapping[str, Any]) -> dict[str, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps(message) + "\n")
        process.stdin.flush()
        answer = process.stdout.readline()
    except BrokenPipeError:
        answer = ""
    if answer:
        return json.loads(answer)
    status = process.wait()
    log.seek(0)
    printed = log.read().strip().splitlines()[-LINES_SHOWN:]
    if printed and printed[-1].startswith("ModuleNotFoundError"):
        raise UserError(
            f'benchmark: {name!r} cannot be measured: {printed[-1]}; pip install "vision_transfer[peers]", or name an '
            "interpreter that has it in config.benchmark.peer_python"
        )
    raise UserError(
        f"benchmark: the process that measures {name!r} ended with status {status}; it printed last\n  "
        + "\n  ".join(printed)
    )

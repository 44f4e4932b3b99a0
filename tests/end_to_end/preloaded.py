"""Does commands of `launch.py` in copies of a process that has imported the program.

Each start imports for a second or more, and a fork has everything imported. Tests call `preloaded`; the process that
forks is this file, run as a program.
"""

import importlib
import json
import os
import pkgutil
import runpy
import select
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path

LAUNCH = Path(__file__).resolve().parents[2] / "launch.py"
# Imported by the program where it needs them, as the modules of vision_transfer do with each other.
LIBRARIES = ("matplotlib.pyplot", "orbax.checkpoint", "scipy.stats", "sklearn.linear_model", "sklearn.svm")


class Preloaded:
    """A process that forks for each command, and ends with this one."""

    def __init__(self):
        environment = os.environ | {"PYTHONUTF8": "1"}
        self.process = subprocess.Popen(
            [sys.executable, __file__], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )

    def run(self, flags, cwd, environment, seconds):
        """Does the command with its output in `stdout.txt` and `stderr.txt` of `cwd`; returns its exit status.

        Raises `subprocess.TimeoutExpired` after `seconds`.
        """
        order = {"flags": [str(flag) for flag in flags], "cwd": str(cwd), "environment": environment}
        self.process.stdin.write(json.dumps(order).encode() + b"\n")
        pid = int(self.process.stdout.readline())
        if not select.select([self.process.stdout], [], [], seconds)[0]:
            os.kill(pid, signal.SIGKILL)
            self.process.stdout.readline()
            raise subprocess.TimeoutExpired(order["flags"], seconds)
        return int(self.process.stdout.readline())


@cache
def preloaded():
    """The one of these tests; the processes of pytest-xdist have one each."""
    return Preloaded()


def _preload():
    import vision_transfer

    for module in pkgutil.walk_packages(vision_transfer.__path__, "vision_transfer."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in LIBRARIES:
        importlib.import_module(name)


def _become(order):
    """Makes this process what the order asks for, and runs the command in it."""
    os.chdir(order["cwd"])
    pages = {name: value for name, value in os.environ.items() if name == VARIABLE}
    os.environ.clear()
    os.environ.update(order["environment"] | pages)
    for number, name in ((1, "stdout.txt"), (2, "stderr.txt")):
        file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
        os.close(file)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    sys.argv = [str(LAUNCH), *order["flags"]]
    runpy.run_path(str(LAUNCH), run_name="__main__")


def _serve():
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            return json.loads(line)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()
        _, status = os.waitpid(pid, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()
    return None


if __name__ == "__main__":
    sys.path[0] = str(LAUNCH.parent)
    from vision_transfer.runtime.huge_pages import VARIABLE, restart_with_huge_pages

    restart_with_huge_pages()
    _preload()
    if (order := _serve()) is not None:
        _become(order)

"""Does commands of `launch.py` in forks of a process that has imported the libraries.

Each start would import them for a second or more. Tests call `preloaded`; the process that forks is this file, run as a
program.
"""

import importlib
import json
import os
import runpy
import select
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path

LAUNCH = Path(__file__).resolve().parents[2] / "launch.py"
# They take most of the time of a start's imports. The package itself is not among them, so that a module of it that
# forgets to import another fails as it would for a user.
LIBRARIES = (
    "flax",
    "matplotlib.pyplot",
    "ml_collections.config_flags",
    "optax",
    "orbax.checkpoint",
    "scipy.stats",
    "sklearn.linear_model",
    "sklearn.svm",
)


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
    """The process that forks; each process of pytest-xdist has one."""
    return Preloaded()


def _become(order):
    """Makes this process what the order asks for, and runs the command in it."""
    from vision_transfer.runtime.huge_pages import VARIABLE

    os.chdir(order["cwd"])
    huge_pages = {name: value for name, value in os.environ.items() if name == VARIABLE}
    os.environ.clear()
    os.environ.update(order["environment"] | huge_pages)
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
    from vision_transfer.runtime.huge_pages import restart_with_huge_pages

    restart_with_huge_pages()
    for name in LIBRARIES:
        importlib.import_module(name)
    if (order := _serve()) is not None:
        _become(order)

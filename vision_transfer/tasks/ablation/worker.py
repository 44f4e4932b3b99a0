"""A worker as a process of its own: `python -m vision_transfer.tasks.ablation.worker SWEEP [CORES] [PARENT]`.

It computes on the cores that it is given, but makes as many devices as the command that started it would, so that the
numbers of a sweep do not depend on how many workers it has.
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path

from vision_transfer.errors import UserError

# Between two looks whether the process that started this one is still there.
SECONDS_BETWEEN_LOOKS = 1.0
USER_ERROR_STATUS = 2


def main(arguments: list[str]) -> int:
    """Works on a sweep until it is done; returns the exit status."""
    folder, cores, parent = (*arguments, "", "")[:3]
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {int(core) for core in cores.split(",")})
    if parent:
        threading.Thread(target=_end_with, args=(int(parent),), daemon=True).start()
    from vision_transfer.runtime.console import Screen
    from vision_transfer.runtime.preemption import Stopped, StopSignal

    stop, screen = StopSignal(), Screen()
    stop.install()
    try:
        work_on(Path(folder), stop, screen)
    except UserError as error:
        sys.stderr.write(f"worker: {error}\n")
        return USER_ERROR_STATUS
    except Stopped as stopped:
        return stopped.status
    return 0


def work_on(path: Path, stop, screen) -> None:
    """Sets JAX up as the command would, and does what is left of the sweep."""
    from vision_transfer.runs.prepare import RunOptions
    from vision_transfer.runtime import jax_setup
    from vision_transfer.tasks.ablation.queue import work
    from vision_transfer.tasks.ablation.sweep import SweepFolder, read_plan
    from vision_transfer.tasks.train import task

    folder = SweepFolder(path)
    study, given = read_plan(folder)
    cache = Path(given["cache_dir"])
    os.chdir(given["directory"])
    jax_setup.configure(cache, deterministic=any(run.config.deterministic for run in study.runs))
    options = RunOptions(None, cache, given["rerun"], given["reuse"], stop, given["command"])
    work(study, folder, options, task.train, screen)


def _end_with(parent: int) -> None:
    """Ends this process, with its checkpoint saved, when the one that started it is gone."""
    while os.getppid() == parent:
        time.sleep(SECONDS_BETWEEN_LOOKS)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

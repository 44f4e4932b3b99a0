"""The process of a worker: `python -m vision_transfer.tasks.ablation.worker SWEEP [CORES] [PARENT]`.

It runs on the cores that it is given but creates as many devices as the command that started it, so that the numbers of
a sweep do not depend on how many workers it has.
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path

from vision_transfer.errors import UserError

# Between two checks that the parent process still exists.
SECONDS_BETWEEN_CHECKS = 1.0
USER_ERROR_STATUS = 2


def main(arguments: list[str]) -> int:
    """Does the remaining runs of a sweep together with other workers; returns the exit status."""
    path, cores, parent = (*arguments, "", "")[:3]
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {int(core) for core in cores.split(",")})
    if parent:
        threading.Thread(target=_end_with, args=(int(parent),), daemon=True).start()
    # JAX counts the cores when it is imported.
    from vision_transfer.runs.prepare import RunOptions
    from vision_transfer.runtime import jax_setup
    from vision_transfer.runtime.console import Screen
    from vision_transfer.runtime.preemption import Stopped, StopSignal, leave
    from vision_transfer.tasks.ablation.all_runs import work
    from vision_transfer.tasks.ablation.slurm import check_locks
    from vision_transfer.tasks.ablation.sweep import SweepFolder, read_plan
    from vision_transfer.tasks.study.runs import launch

    stop, folder = StopSignal(), SweepFolder(Path(path))
    stop.install()
    try:
        check_locks(folder)
        study, given = read_plan(folder)
        cache = Path(given["cache_dir"])
        os.chdir(given["directory"])
        jax_setup.configure(cache, deterministic=any(run.config.deterministic for run in study.runs))
        options = RunOptions(None, cache, given["rerun"], given["reuse"], stop, given["command"], test=given["test"])
        work(study, folder, options, launch, Screen(check=stop.check))
    except UserError as error:
        sys.stderr.write(f"worker: {error}\n")
        return USER_ERROR_STATUS
    except Stopped as stopped:
        leave(stopped.status)
    return 0


def _end_with(parent: int) -> None:
    """Ends this process, after saving a checkpoint, when its parent process is gone."""
    while os.getppid() == parent:
        time.sleep(SECONDS_BETWEEN_CHECKS)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

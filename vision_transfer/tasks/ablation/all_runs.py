"""Does all runs of a sweep: here, in several processes, or in the jobs of a cluster.

Each worker takes free runs until all are finished or have failed.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace

from vision_transfer.config.task_schema import SlurmConfig
from vision_transfer.errors import UserError
from vision_transfer.runs.folder import DEFAULT_ROOT, FolderBusy, OtherConditions
from vision_transfer.runs.prepare import RunOptions
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.files import held
from vision_transfer.tasks.ablation.grid import first_stage_key, run_key
from vision_transfer.tasks.ablation.launchers import PROCESSES, run_in_processes
from vision_transfer.tasks.ablation.slurm import run_in_jobs
from vision_transfer.tasks.ablation.sweep import (
    SweepFolder,
    failure,
    finished_run,
    for_workers,
    forget,
    note_failed,
    note_finished,
    note_refused,
    write_plan,
)
from vision_transfer.tasks.study.plan import PlannedRun, Study
from vision_transfer.tasks.study.runs import Launch, conditions, launch

SHARED_STAGES = DEFAULT_ROOT / ".stages"
# Between two checks of runs that other workers hold.
SECONDS_BETWEEN_CHECKS = 1.0


def work(
    study: Study,
    folder: SweepFolder,
    options: RunOptions,
    launch: Launch,
    screen: Screen,
    wait: Callable[[float], None] = time.sleep,
) -> None:
    """Does the remaining runs of a sweep, together with other workers; returns when there are none.

    A run that fails (for example because its loss is not finite) is recorded as failed, and the others continue. One
    that was computed under other conditions is left as it is, such as by a worker on another kind of device. Runs
    that other workers hold are waited for, so that none is lost when its worker dies. `options` are those of every run,
    without `workdir`.

    Raises:
        Stopped: asked to stop; another call resumes.
    """
    now = None if options.reuse else conditions()
    own = replace(options, workdir=None, shared_stages=None if options.rerun else SHARED_STAGES)

    def attempt(run: PlannedRun) -> bool:
        """Does a run; returns False if another worker holds it or the first stage that it shares."""
        first_stage = first_stage_key(run.config)
        with ExitStack() as claims:
            if not claims.enter_context(held(folder.lock(run_key(run.config)))):
                return False
            if finished_run(run, folder, now, tested=options.test) is not None or failure(run, folder) is not None:
                return True
            begun = folder.begun_file(first_stage).exists()
            if not begun and not claims.enter_context(held(folder.lock(f"first-{first_stage}"))):
                return False
            screen.say()
            number = study.runs.index(run) + 1
            screen.say(f"Run {number} of {len(study.runs)}: {run.name}", style="bold")
            try:
                run_folder = launch(run.config, own, screen)
            except FolderBusy:  # another sweep has the same run
                return False
            except OtherConditions as reason:
                note_refused(run, folder, str(reason))
                screen.say(f"Left as it is: {reason}", style="yellow")
                return True
            except UserError as error:
                note_failed(run, folder, str(error))
                screen.say(f"This run failed: {error}", style="red")
                return True
            note_finished(run, folder, run_folder.path.absolute())
            return True

    left = list(study.runs)
    while left:
        screen.check()
        still_left = [run for run in left if not attempt(run)]
        if len(still_left) == len(left):
            wait(SECONDS_BETWEEN_CHECKS)
        left = still_left


def do_all(
    study: Study,
    folder: SweepFolder,
    options: RunOptions,
    launcher: tuple[str, int],
    slurm: SlurmConfig,
    screen: Screen,
) -> None:
    """Does the runs that remain; those that failed earlier are tried again. For `launcher` see `read_launcher`.

    Raises:
        UserError: the workers cannot be started, or end with errors.
        Stopped: asked to stop; another call resumes.
    """
    forget(study, folder, finished=False)
    write_plan(study, folder, for_workers(options))
    kind, workers = launcher
    if not kind:
        work(study, folder, options, launch, screen)
    elif kind == PROCESSES:
        run_in_processes(folder, workers, _progress(study, folder, screen), screen)
    else:
        run_in_jobs(folder, workers, slurm, _progress(study, folder, screen), screen)


def failures(study: Study, folder: SweepFolder) -> list[str]:
    """A line for each run that failed: its name, and the first line of its error."""
    errors = {run.name: failure(run, folder) for run in study.runs}
    return [f"  {name}: {error.splitlines()[0]}" for name, error in errors.items() if error is not None]


def _progress(study: Study, folder: SweepFolder, screen: Screen) -> Callable[[], int]:
    """A function that counts the recorded runs, and shows a line for each new one."""
    files = {run.name: folder.record_file(run) for run in study.runs}
    known = {name for name, file in files.items() if file.exists()}

    def count() -> int:
        screen.check()
        for name, file in files.items():
            if name not in known and file.exists():
                known.add(name)
                screen.say(f"{len(known)} of {len(files)} runs: {name}")
        return len(known)

    return count

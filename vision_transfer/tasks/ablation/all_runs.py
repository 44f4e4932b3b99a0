"""Does all runs of a sweep: here, in several processes, or in the jobs of a cluster.

Each worker takes free runs until all are finished or have failed.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace

from vision_transfer.config import Config
from vision_transfer.config.task_schema import SlurmConfig
from vision_transfer.errors import UserError
from vision_transfer.runs.folder import DEFAULT_ROOT, FolderBusy, Identity, OtherConditions, RunFolder
from vision_transfer.runs.prepare import RunOptions
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.files import absolute_path, held
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
    refusal,
    write_plan,
)
from vision_transfer.tasks.study.plan import PlannedRun, Study
from vision_transfer.tasks.study.runs import FinishedRun, Launch, conditions, launch

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
        """Does a run; returns False if another worker holds it, its shared first stage, or what it starts from."""
        first_stage = run.first_stage_key
        with ExitStack() as claims:
            if not claims.enter_context(held(folder.lock(run.key))):
                return False
            if finished_run(run, folder, now, tested=options.test) is not None or failure(run, folder) is not None:
                return True
            begun = folder.begun_file(first_stage).exists()
            if not begun and not claims.enter_context(held(folder.lock(f"first-{first_stage}"))):
                return False
            return _do(run, study, folder, now, lambda config: launch(config, own, screen), screen)

    left = list(study.runs)
    while left:
        screen.check()
        still_left = [run for run in left if not attempt(run)]
        if len(still_left) == len(left):
            wait(SECONDS_BETWEEN_CHECKS)
        left = still_left


def _do(
    run: PlannedRun,
    study: Study,
    folder: SweepFolder,
    now: Identity | None,
    launched: Callable[[Config], RunFolder],
    screen: Screen,
) -> bool:
    """Does a run that this process holds, and records how it ended; returns False if it has to wait."""
    began = time.monotonic()
    try:
        config = _started(run, study, folder, now)
        if config is None:
            return False
        screen.say()
        screen.say(f"Run {study.runs.index(run) + 1} of {len(study.runs)}: {run.name}", style="bold")
        note_finished(run, folder, launched(config).path.absolute())
    except FolderBusy:  # another sweep has the same run
        return False
    except OtherConditions as reason:
        note_refused(run, folder, str(reason))
        screen.say(f"Left as it is: {reason}", style="yellow")
    except UserError as error:
        note_failed(run, folder, str(error), time.monotonic() - began)
        screen.say(f"This run failed: {error}", style="red")
    return True


def _started(run: PlannedRun, study: Study, folder: SweepFolder, now: Identity | None) -> Config | None:
    """The run's config, with the folder that it starts from as `init_from`; None while that run is not finished."""
    if run.start is None:
        return run.config
    start = next(one for one in study.runs if one.name == run.start.name)
    if (reason := failure(start, folder) or refusal(start, folder)) is not None:
        raise UserError(f"{start.name}, which it starts from, cannot be used: {reason}")
    found = finished_run(start, folder, now)
    if found is None and finished_run(start, folder, None) is not None:
        raise OtherConditions(
            f"{start.name}, which it starts from, was done under other conditions; --rerun does it again, --reuse "
            "takes it as it is"
        )
    return None if found is None else replace(run.config, init_from=absolute_path(str(found.folder)))


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


def all_finished(study: Study, folder: SweepFolder) -> list[FinishedRun]:
    """The runs of a study in its order.

    Raises:
        UserError: some failed, were left as they are, or are not finished on this data.
    """
    if failed := failures(study, folder):
        raise UserError("\n".join([f"{len(failed)} of {len(study.runs)} runs failed:", *failed]))
    reasons = [f"  {run.name}: {reason}" for run in study.runs if (reason := refusal(run, folder)) is not None]
    if reasons:
        raise UserError("\n".join(["runs were left as they are, computed under other conditions:", *reasons]))
    found = {run.name: finished_run(run, folder, None) for run in study.runs}
    if missing := [name for name, one in found.items() if one is None]:
        raise UserError(f"{folder.path}: {', '.join(missing)} not finished on this data; do the same command again")
    return [one for one in found.values() if one is not None]


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

"""Does all runs of a sweep: here, in several processes, or in the jobs of a cluster."""

from collections.abc import Callable

from vision_transfer.config.task_schema import SlurmConfig
from vision_transfer.runs.prepare import RunOptions
from vision_transfer.runtime.console import Screen
from vision_transfer.tasks.ablation.launchers import PROCESSES, run_in_processes
from vision_transfer.tasks.ablation.queue import work
from vision_transfer.tasks.ablation.slurm import run_in_jobs
from vision_transfer.tasks.ablation.sweep import SweepFolder, failure, for_workers, forget, write_plan
from vision_transfer.tasks.study.launch import launch
from vision_transfer.tasks.study.plan import Study


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

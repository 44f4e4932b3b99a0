"""Doing the runs of a study: each in a run folder of its own, finished ones never again, begun ones to their end."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from rich.markup import escape

from vision_transfer.config import Config, flatten
from vision_transfer.errors import UserError
from vision_transfer.runs.folder import Identity, RunFolder, read_json
from vision_transfer.runs.prepare import RunOptions, device_text
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.files import remove_leftovers, write_json
from vision_transfer.runtime.provenance import code_digest, json_digest, versions
from vision_transfer.tasks.study.plan import PlannedRun, Study

# Which folder holds which run of the study, so that a finished one is found without reading its data again.
RECORD = "runs.json"
# Does a config, or finds its finished run.
Launch = Callable[[Config, RunOptions, Screen], RunFolder]


@dataclass(frozen=True)
class FinishedRun:
    """A run of a study with its result.

    Attributes:
        run: as it was planned.
        folder: of the run.
        result: the content of its `result.json`.
    """

    run: PlannedRun
    folder: Path
    result: dict[str, Any]


def finished_runs(study: Study, folder: Path, options: RunOptions) -> dict[str, FinishedRun]:
    """The runs that an earlier command finished on these data, under today's code, versions and device, by name.

    Args:
        study: the plan.
        folder: of the study.
        options: with `rerun` nothing counts as finished, with `reuse` other conditions count too.
    """
    record = read_json(folder / RECORD) or {}
    found: dict[str, FinishedRun] = {}
    now = Identity("", code_digest(), versions(), device_text())
    for run in study.runs:
        entry = record.get(run.name)
        started = run.start is None or run.start in found
        if options.rerun or not started or not isinstance(entry, Mapping):
            continue
        if entry.get("config") != json_digest(flatten(_started(run, found))):
            continue
        run_folder = RunFolder(Path(str(entry.get("folder"))))
        result, identity = run_folder.result(), run_folder.identity()
        if result is None or identity is None or (now.differences(identity) and not options.reuse):
            continue
        if not run.on_same_data(result):
            continue
        found[run.name] = FinishedRun(run, run_folder.path, result)
    return found


def execute(
    study: Study, folder: Path, options: RunOptions, launch: Mapping[str, Launch], screen: Screen
) -> list[FinishedRun]:
    """All runs of a study, in order; those that are finished are only read.

    Args:
        study: the plan.
        folder: of the study; `runs.json` in it says where each run is. The runs themselves are in `runs/`, where other
            studies and single commands find them too.
        options: of every run; its `workdir` is not used.
        launch: how each `config.task` is done.
        screen: for what the runs say.

    Raises:
        UserError: a run that cannot be done, or another process at work on the study.
        Stopped: asked to stop; the same call goes on from there.
    """
    with _claimed(folder):
        done = finished_runs(study, folder, options)
        record = {name: _entry(finished.run, done, finished.folder) for name, finished in done.items()}
        for number, run in enumerate(study.runs, start=1):
            if run.name in done:
                continue
            screen.say()
            screen.say(escape(f"Run {number} of {len(study.runs)}: {run.name}"), style="bold")
            config = _started(run, done)
            run_folder = launch[config.task](config, replace(options, workdir=None), screen)
            result = run_folder.result()
            assert result is not None, "a run that returned is finished"
            done[run.name] = FinishedRun(run, run_folder.path, result)
            record[run.name] = _entry(run, done, run_folder.path)
            write_json(folder / RECORD, record)
    return [done[run.name] for run in study.runs]


def _started(run: PlannedRun, done: Mapping[str, FinishedRun]) -> Config:
    """The run's config, told where the run that it starts from is."""
    if run.start is None:
        return run.config
    return replace(run.config, init_from=str(done[run.start].folder))


def _entry(run: PlannedRun, done: Mapping[str, FinishedRun], folder: Path) -> dict[str, str]:
    return {"config": json_digest(flatten(_started(run, done))), "folder": str(folder)}


@contextmanager
def _claimed(folder: Path) -> Iterator[None]:
    """Holds the study's folder for this process."""
    lock = FileLock(folder / ".lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UserError(f"{folder}: another process is at work on this study; wait for it") from error
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be made or written to ({error.strerror or error}); give --workdir a folder that can"
        ) from error
    try:
        remove_leftovers(folder)
        yield
    finally:
        lock.release()

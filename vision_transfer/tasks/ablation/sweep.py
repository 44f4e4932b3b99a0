"""A sweep's folder: the plan that workers read, and the state by which they agree on who does which run.

    sweep.json       the runs in their order, and the options of the command
    plan/KEY.json    the config of each run
    records/KEY.json the folder of a finished run, the error of a failed one, or why it was left as it is
    begun/KEY        exists once a run with this first stage, such as a head, is finished
    alive            touched while a command waits for jobs of a cluster (`slurm.py`)
    locks/           a file for each thing that only one worker may do at a time
    logs/            the output of each worker process
    figures/         the figures of the report

A worker does a run while it holds the run's lock; locks are released when their process ends.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from vision_transfer.config import read_config, to_dict
from vision_transfer.runs.folder import Identity, read_json
from vision_transfer.runs.prepare import RunOptions
from vision_transfer.runtime.files import remove_leftovers, write_json, write_text
from vision_transfer.tasks.study.plan import PlannedRun, Study
from vision_transfer.tasks.study.runs import FinishedRun, read_finished


@dataclass(frozen=True)
class SweepFolder:
    """Paths in a sweep's folder; see above for what they hold."""

    path: Path

    @property
    def sweep_file(self) -> Path:
        """Names, labels and keys of the runs, and the options of the command."""
        return self.path / "sweep.json"

    def config_file(self, key: str) -> Path:
        """Config of a run."""
        return self.path / "plan" / f"{key}.json"

    def record_file(self, run: PlannedRun) -> Path:
        """Record of a finished or failed run."""
        return self.path / "records" / f"{run.key}.json"

    def begun_file(self, first_stage: str) -> Path:
        """Mark of a finished first stage."""
        return self.path / "begun" / first_stage

    def lock(self, name: str) -> FileLock:
        """The lock of this name, not yet acquired."""
        folder = self.path / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / f"{name}.lock")


def for_workers(options: RunOptions) -> dict[str, Any]:
    """The options of a command that its workers need, as JSON values."""
    return {
        "cache_dir": str(options.cache_dir),
        "directory": str(Path.cwd()),
        "command": options.command,
        "rerun": options.rerun,
        "reuse": options.reuse,
        "test": options.test,
    }


def write_plan(study: Study, folder: SweepFolder, options: dict[str, Any]) -> None:
    """Writes the plan for the workers, and removes unfinished files of killed ones."""
    for place in (folder.path, *(folder.path / part for part in ("figures", "records", "plan", "begun"))):
        place.mkdir(parents=True, exist_ok=True)
        remove_leftovers(place)
    runs = []
    for run in study.runs:
        write_json(folder.config_file(run.key), to_dict(run.config))
        runs.append({"name": run.name, "labels": run.labels, "key": run.key, "data": run.data})
    write_json(folder.sweep_file, {"name": study.name, "runs": runs, "options": options})


def read_plan(folder: SweepFolder) -> tuple[Study, dict[str, Any]]:
    """The study and the options that `write_plan` wrote."""
    content = json.loads(folder.sweep_file.read_text(encoding="utf-8"))
    runs = tuple(
        PlannedRun(run["name"], read_config(folder.config_file(run["key"])), run["labels"], data=run["data"])
        for run in content["runs"]
    )
    return Study(content["name"], runs), content["options"]


def forget(study: Study, folder: SweepFolder, *, finished: bool) -> None:
    """Removes the records of failed and refused runs, so that they are tried again; with `finished` all records."""
    for run in study.runs:
        file = folder.record_file(run)
        record = read_json(file)
        if record is not None and (finished or "folder" not in record):
            file.unlink(missing_ok=True)
    if finished:
        shutil.rmtree(folder.path / "begun", ignore_errors=True)


def note_finished(run: PlannedRun, folder: SweepFolder, run_folder: Path) -> None:
    """Records that a run, and with it its first stage, is finished."""
    write_json(folder.record_file(run), {"name": run.name, "folder": str(run_folder)})
    write_text(folder.begun_file(run.first_stage_key), run.name)


def note_failed(run: PlannedRun, folder: SweepFolder, error: str, seconds: float) -> None:
    """Records why a run failed, and after how long."""
    write_json(folder.record_file(run), {"name": run.name, "error": error, "seconds": round(seconds, 3)})


def note_refused(run: PlannedRun, folder: SweepFolder, reason: str) -> None:
    """Records that a run was left as it is, computed under other conditions; the record of a finished run stays."""
    if "folder" not in (read_json(folder.record_file(run)) or {}):
        write_json(folder.record_file(run), {"name": run.name, "refused": reason})


def refusal(run: PlannedRun, folder: SweepFolder) -> str | None:
    """Why a run was left as it is, or None."""
    return (read_json(folder.record_file(run)) or {}).get("refused")


def failure(run: PlannedRun, folder: SweepFolder) -> str | None:
    """Why a run failed, or None."""
    return (read_json(folder.record_file(run)) or {}).get("error")


def failed_seconds(run: PlannedRun, folder: SweepFolder) -> float:
    """Seconds that a run took until it failed; 0 where it did not."""
    return float((read_json(folder.record_file(run)) or {}).get("seconds", 0.0))


def finished_run(
    run: PlannedRun, folder: SweepFolder, now: Identity | None, *, beside: bool = False, tested: bool = True
) -> FinishedRun | None:
    """A run that was finished earlier on the data that it is planned on, or None.

    `now` are the current code, versions and device, which must be those of the run; None accepts any. With `beside`,
    runs of other sweeps in the same folder count too; unless `tested`, those that are trained but not tested.
    """
    own = folder.record_file(run)
    others = sorted(folder.path.parent.glob(f"*/{own.parent.name}/{own.name}")) if beside else []
    for file in (own, *others):
        record = read_json(file) or {}
        if "folder" in record and (finished := read_finished(run, Path(str(record["folder"])), now, tested=tested)):
            return finished
    return None

"""A sweep's folder: the plan that workers read, who is at work on which run, and which runs are finished.

    sweep.json       the runs in their order, and the options of the command
    plan/KEY.json    the config of each run
    records/KEY.json where a finished run is, or why it failed
    begun/KEY        a first stage, such as a head, that some run has finished
    locks/           a file each for what only one worker does at a time

Workers agree through these files alone: a run is done while its lock is held, and locks end with their process.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from vision_transfer.config import read_config, to_dict
from vision_transfer.runs.folder import Identity, RunFolder, read_json
from vision_transfer.runtime.files import remove_leftovers, replaced_file, write_json
from vision_transfer.tasks.ablation.grid import first_stage_key, run_key
from vision_transfer.tasks.study.plan import PlannedRun, Study
from vision_transfer.tasks.study.runs import FinishedRun


@dataclass(frozen=True)
class SweepFolder:
    """Paths in a sweep's folder."""

    path: Path

    @property
    def sweep_file(self) -> Path:
        """Names, labels and keys of the runs, and the options of the command."""
        return self.path / "sweep.json"

    @property
    def logs(self) -> Path:
        """What workers say, a file each."""
        return self.path / "logs"

    @property
    def figures(self) -> Path:
        """The sweep's figures."""
        return self.path / "figures"

    def config_file(self, key: str) -> Path:
        """The config of a run."""
        return self.path / "plan" / f"{key}.json"

    def record_file(self, key: str) -> Path:
        """Where a finished run is, or why it failed."""
        return self.path / "records" / f"{key}.json"

    def begun_file(self, first_stage: str) -> Path:
        """Is there when a run with this first stage is finished."""
        return self.path / "begun" / first_stage

    def lock(self, name: str) -> FileLock:
        """The lock of that name, not yet acquired."""
        folder = self.path / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / f"{name}.lock")


def write_plan(study: Study, folder: SweepFolder, options: dict[str, Any]) -> None:
    """Writes what workers read, and removes what killed ones were writing."""
    for place in (folder.path, folder.figures, *(folder.path / part for part in ("records", "plan", "begun"))):
        place.mkdir(parents=True, exist_ok=True)
        remove_leftovers(place)
    runs = []
    for run in study.runs:
        key = run_key(run.config)
        write_json(folder.config_file(key), to_dict(run.config))
        runs.append({"name": run.name, "labels": run.labels, "key": key, "data": run.data})
    write_json(folder.sweep_file, {"name": study.name, "over": study.over, "runs": runs, "options": options})


def read_plan(folder: SweepFolder) -> tuple[Study, dict[str, Any]]:
    """The study and the options that `write_plan` wrote."""
    content = json.loads(folder.sweep_file.read_text(encoding="utf-8"))
    runs = tuple(
        PlannedRun(run["name"], read_config(folder.config_file(run["key"])), run["labels"], data=run["data"])
        for run in content["runs"]
    )
    return Study(content["name"], runs, content["over"]), content["options"]


def forget(study: Study, folder: SweepFolder, *, finished: bool) -> None:
    """Removes the records of failures, so that these runs are tried again, and with `finished` all records."""
    for run in study.runs:
        file = folder.record_file(run_key(run.config))
        record = read_json(file)
        if record is not None and (finished or "error" in record):
            file.unlink(missing_ok=True)
    if finished:
        shutil.rmtree(folder.path / "begun", ignore_errors=True)


def note_finished(run: PlannedRun, folder: SweepFolder, run_folder: Path) -> None:
    """Records that a run is finished, and with it its first stage."""
    write_json(folder.record_file(run_key(run.config)), {"name": run.name, "folder": str(run_folder)})
    with replaced_file(folder.begun_file(first_stage_key(run.config))) as temporary:
        temporary.write_text(run.name, encoding="utf-8")


def note_failed(run: PlannedRun, folder: SweepFolder, error: str) -> None:
    """Records why a run failed."""
    write_json(folder.record_file(run_key(run.config)), {"name": run.name, "error": error})


def failures(study: Study, folder: SweepFolder) -> dict[str, str]:
    """Why runs failed, by their names."""
    records = {run.name: read_json(folder.record_file(run_key(run.config))) or {} for run in study.runs}
    return {name: str(record["error"]) for name, record in records.items() if "error" in record}


def finished_run(
    run: PlannedRun, folder: SweepFolder, now: Identity | None, *, beside: bool = False
) -> FinishedRun | None:
    """A run that was finished before on the data that it is planned on, or None.

    Args:
        run: of the plan.
        folder: of the sweep.
        now: code, versions and device of today, under which it must have been done; None where any will do.
        beside: whether runs of sweeps in the same place count too.
    """
    own = folder.record_file(run_key(run.config))
    others = sorted(folder.path.parent.glob(f"*/{own.parent.name}/{own.name}")) if beside else []
    found = (_finished_as(read_json(file), run, now) for file in (own, *others))
    return next((one for one in found if one is not None), None)


def _finished_as(record: dict[str, Any] | None, run: PlannedRun, now: Identity | None) -> FinishedRun | None:
    if record is None or "folder" not in record:
        return None
    run_folder = RunFolder(Path(str(record["folder"])))
    result, identity = run_folder.result(), run_folder.identity()
    if result is None or identity is None or (now is not None and now.differences(identity)):
        return None
    if not run.on_same_data(result):
        return None
    return FinishedRun(run, run_folder.path, result)

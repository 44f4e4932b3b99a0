"""Tracks a run (`config.log.tracker`) so that no failure of a tracker costs it, and a resumed run continues there."""

import importlib.util
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from vision_transfer.config import Config
from vision_transfer.config.fields import flatten
from vision_transfer.errors import UserError
from vision_transfer.runs.folder import read_json
from vision_transfer.runs.prepare import Run
from vision_transfer.runtime import hosts
from vision_transfer.runtime.files import write_json
from vision_transfer.runtime.program import install_extra
from vision_transfer.tasks.train.trackers import TRACKERS, Metrics, Start, Tracker

_OF_RECORDS = {
    "train/loss": "train_loss",
    "train/accuracy": "train_accuracy",
    "train/lr": "lr",
    "train/seconds": "seconds",
    "validation/loss": "validation_loss",
    "validation/accuracy": "validation_accuracy",
}


def check_tracker(config: Config) -> None:
    """Raises UserError if the library of the tracker is not installed."""
    name = config.log.tracker
    if name == "none":
        return
    module = TRACKERS[name][0]
    spec = importlib.util.find_spec(module)
    # A folder `wandb` or `mlflow` in the current folder is a namespace package to Python, which has no origin.
    if spec is None or spec.origin is None:
        raise UserError(
            f"config.log.tracker: {name} needs {module}, which is not installed: {install_extra(name)}; or leave it "
            "out: metrics.jsonl has the same numbers"
        )


class Session:
    """A run at its tracker, which is given up at its first failure; `RUN/tracker.json` has what it was sent."""

    def __init__(self, run: Run) -> None:
        self.run, self.name = run, run.config.log.tracker
        self.logged = 0
        self.tracker: Tracker | None = None
        if self.name != "none" and hosts.is_first():
            self._try(self._start)

    def log(self, records: Sequence[dict[str, Any]]) -> None:
        """Sends those of the run's records that were not sent before; a record's step is its place among them."""
        for step, record in enumerate(records, start=1):
            if step > self.logged and self.tracker is not None:
                metrics = {
                    f"{record['stage']}/{name}": float(record[key])
                    for name, key in _OF_RECORDS.items()
                    if record[key] is not None
                }
                self._try(partial(self._log, self.tracker, step, metrics))

    def finish(self, result: dict[str, Any]) -> None:
        """Sends the test's metrics with their intervals, the figures and the report, and ends the run there."""
        folder = self.run.folder
        if self.tracker is not None:
            self.log([json.loads(line) for line in folder.metrics_file.read_text(encoding="utf-8").splitlines()])
        files = [folder.config_file, folder.result_file, folder.report_file, *sorted(folder.figures.glob("*.png"))]
        self._end(test_metrics(result), [file for file in files if file.is_file()])

    def stop(self) -> None:
        """Ends this process's part of a run that is not finished."""
        self._end({}, [])

    def _end(self, metrics: Metrics, files: Sequence[Path]) -> None:
        if self.tracker is not None:
            self._try(partial(self.tracker.finish, metrics, files))
        self.tracker = None

    def _start(self) -> None:
        folder = self.run.folder
        kept = read_json(folder.tracker_file) or {}
        kept = kept if kept.get("tracker") == self.name else {}
        start = Start(folder.path.name, folder.path / self.name, flatten(self.run.config), kept.get("id"))
        self.tracker, self.logged = TRACKERS[self.name][1](start), int(kept.get("logged", 0))
        self._keep(self.tracker)

    def _log(self, tracker: Tracker, step: int, metrics: Metrics) -> None:
        tracker.log(step, metrics)
        self.logged = step
        self._keep(tracker)

    def _keep(self, tracker: Tracker) -> None:
        write_json(self.run.folder.tracker_file, {"tracker": self.name, "id": tracker.id, "logged": self.logged})

    def _try(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # whatever a library or a server does
            self.tracker = None
            reason = " ".join(str(error).split())[:200]
            self.run.screen.say(
                f"config.log.tracker: {self.name} failed ({type(error).__name__}: {reason}); the run goes on "
                "without it, and metrics.jsonl has all numbers.",
                style="yellow",
            )


@contextmanager
def tracking(run: Run) -> Iterator[Session]:
    """A run's session at its tracker, ended however the run ends."""
    session = Session(run)
    try:
        yield session
    finally:
        session.stop()


def test_metrics(result: dict[str, Any]) -> dict[str, float]:
    """The test's metrics in a `result.json`, with the ends of the 95 % interval of its accuracy."""
    test = result["test"]
    low, high = test["accuracy_ci95"]
    found = {
        "test/accuracy": test["accuracy"],
        "test/accuracy_low": low,
        "test/accuracy_high": high,
        "test/balanced_accuracy": test["balanced_accuracy"],
        "test/loss": test["loss"],
    }
    return {name: float(value) for name, value in found.items() if value is not None}

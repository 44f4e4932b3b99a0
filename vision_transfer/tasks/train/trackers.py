"""Trackers of runs: TensorBoard, Weights & Biases or MLflow (`config.log.tracker`), each as one `Tracker`.

A function for each starts a run there, or continues it; its tracker logs the metrics of a step, and finishes with the
test's metrics and files. A `Session` sees to it that no failure of a tracker costs a run.
"""

import importlib
import importlib.util
import json
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
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

PROJECT = "vision_transfer"
# The libraries' own limits are minutes; a run does not wait that long for a server that does not answer.
PATIENCE_SECONDS = 30
# MLflow's limits for one request and one value.
_MLFLOW_PARAMS, _MLFLOW_LENGTH = 100, 6000

# Metrics by name: STAGE/train/loss, test/accuracy.
Metrics = Mapping[str, float]
_NAMES = {
    "train_loss": "train/loss",
    "train_accuracy": "train/accuracy",
    "lr": "train/lr",
    "seconds": "train/seconds",
}
VALIDATION = "validation_"


@dataclass(frozen=True)
class Start:
    """A run as its tracker knows it: name, a folder for files, config by dotted path, and its id where it resumes."""

    name: str
    folder: Path
    config: Mapping[str, Any]
    id: str | None


@dataclass(frozen=True)
class Tracker:
    """A run at a tracker.

    Attributes:
        id: continues it in a later process.
        log: takes a step (epochs over all stages, from 1) and its metrics.
        finish: takes the metrics and files of a run, and whether it has reached its end or only stops.
    """

    id: str
    log: Callable[[int, Metrics], None]
    finish: Callable[[Metrics, Sequence[Path], bool], None]


def start_tensorboard(start: Start) -> Tracker:
    """Event files in the run's folder, in one for each stage and split; of its files they have the images alone."""
    from tensorboardX import SummaryWriter

    writers: dict[str, Any] = {}
    # Files are named by the second: those of a run that resumes within one would replace the earlier ones.
    suffix = f".{uuid.uuid4().hex[:8]}"

    # TensorBoard draws curves of the same tag in one plot, labelled by folder.
    def writer(part: str) -> Any:
        if part not in writers:
            writers[part] = SummaryWriter(str(start.folder / part), filename_suffix=suffix)
        return writers[part]

    def log(step: int, metrics: Metrics) -> None:
        for name, value in metrics.items():
            part, _, tag = name.rpartition("/")
            writer(part).add_scalar(tag, value, step)
        for each in writers.values():
            each.flush()

    def finish(metrics: Metrics, files: Sequence[Path], is_finished: bool) -> None:
        del is_finished  # TensorBoard does not ask
        log(1, metrics)
        for file in _figures(files):
            writer("run").add_image(f"figures/{file.stem}", _pixels(file), dataformats="HWC")
        for each in writers.values():
            each.close()

    if start.id is None:
        writer("run").add_text("config", f"```json\n{json.dumps(start.config, indent=2)}\n```")
    return Tracker(start.id or start.name, log, finish)


def start_wandb(start: Start) -> Tracker:
    """A run of Weights & Biases in the project `vision_transfer` or $WANDB_PROJECT; WANDB_MODE=offline: on disk."""
    wandb: Any = importlib.import_module("wandb")
    identity = start.id or uuid.uuid4().hex[:12]
    patience = {"init_timeout": PATIENCE_SECONDS, "login_timeout": PATIENCE_SECONDS, "finish_timeout": PATIENCE_SECONDS}
    run: Any = wandb.init(
        project=os.environ.get("WANDB_PROJECT", PROJECT),
        name=start.name,
        id=identity,
        resume="allow",
        dir=str(start.folder.parent),  # where it makes a folder `wandb` itself
        config=dict(start.config),
        settings=wandb.Settings(console="off", silent=True, **patience),
    )

    def log(step: int, metrics: Metrics) -> None:
        run.log(dict(metrics), step=step)

    def finish(metrics: Metrics, files: Sequence[Path], is_finished: bool) -> None:
        run.summary.update(dict(metrics))
        if files:
            kept: Any = wandb.Artifact(f"run-{identity}", type="run")
            for file in files:
                kept.add_file(str(file))
            run.log_artifact(kept)
            run.log({f"figures/{file.stem}": wandb.Image(str(file)) for file in _figures(files)})
        run.finish(exit_code=0 if is_finished else 1)

    return Tracker(identity, log, finish)


def start_mlflow(start: Start) -> Tracker:
    """A run of MLflow, in its experiment `vision_transfer` or $MLFLOW_EXPERIMENT_NAME, at $MLFLOW_TRACKING_URI."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(PATIENCE_SECONDS))
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    client: Any = importlib.import_module("mlflow").MlflowClient()
    entities: Any = importlib.import_module("mlflow.entities")
    identity = start.id
    if identity is None:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = client.get_experiment_by_name(name)
        experiment_id = client.create_experiment(name) if experiment is None else experiment.experiment_id
        identity = str(client.create_run(experiment_id, run_name=start.name).info.run_id)
        params = [entities.Param(key, str(value)[:_MLFLOW_LENGTH]) for key, value in start.config.items()]
        for first in range(0, len(params), _MLFLOW_PARAMS):
            client.log_batch(identity, params=params[first : first + _MLFLOW_PARAMS])
    else:
        client.update_run(identity, status="RUNNING")

    def log(step: int, metrics: Metrics) -> None:
        now = int(time.time() * 1000)
        client.log_batch(identity, metrics=[entities.Metric(name, value, now, step) for name, value in metrics.items()])

    def finish(metrics: Metrics, files: Sequence[Path], is_finished: bool) -> None:
        if metrics:
            log(1, metrics)
        for file in files:
            client.log_artifact(identity, str(file), "figures" if file.suffix == ".png" else None)
        client.set_terminated(identity, "FINISHED" if is_finished else "KILLED")

    return Tracker(identity, log, finish)


def _figures(files: Sequence[Path]) -> list[Path]:
    return [file for file in files if file.suffix == ".png"]


def _pixels(file: Path) -> Any:
    import numpy as np
    from PIL import Image

    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"))


# The module that each needs, and what starts it.
TRACKERS: Mapping[str, tuple[str, Callable[[Start], Tracker]]] = {
    "tensorboard": ("tensorboardX", start_tensorboard),
    "wandb": ("wandb", start_wandb),
    "mlflow": ("mlflow", start_mlflow),
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
                self._try(partial(self._log, self.tracker, step, record_metrics(record)))

    def finish(self, result: dict[str, Any] | None) -> None:
        """Sends the test's metrics with their intervals, the figures and the report, and ends the run there.

        `result` is None for a run that is not to be tested.
        """
        folder = self.run.folder
        if self.tracker is not None:
            self.log([json.loads(line) for line in folder.metrics_file.read_text(encoding="utf-8").splitlines()])
        files = [folder.config_file, folder.result_file, folder.report_file, *sorted(folder.figures.glob("*.png"))]
        metrics = {} if result is None else test_metrics(result)
        self._end(metrics, [file for file in files if file.is_file()], True)

    def stop(self) -> None:
        """Ends this process's part of a run that is not finished."""
        self._end({}, [], False)

    def _end(self, metrics: Metrics, files: Sequence[Path], is_finished: bool) -> None:
        if self.tracker is not None:
            self._try(partial(self.tracker.finish, metrics, files, is_finished))
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


def record_metrics(record: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of an epoch's record by their names at a tracker; those of `config.metrics` are of validation."""
    names = {key: f"validation/{key.removeprefix(VALIDATION)}" for key in record if key.startswith(VALIDATION)} | _NAMES
    return {f"{record['stage']}/{name}": float(record[key]) for key, name in names.items() if record[key] is not None}


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
        **{f"test/{name}": value for name, value in test.get("own", {}).items()},
    }
    return {name: float(value) for name, value in found.items() if value is not None}

"""Where runs also go: TensorBoard, Weights & Biases or MLflow (`config.log.tracker`), each as one `Tracker`.

A function for each starts a run there, or continues it; its tracker logs the metrics of a step, and finishes with the
test's metrics and files. `tracking.py` sees to it that no failure here costs a run.
"""

import importlib
import json
import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROJECT = "vision_transfer"
# The libraries' own limits are minutes; a run does not wait that long for a server that does not answer.
PATIENCE_SECONDS = 30
# MLflow's limits for one request and one value.
_MLFLOW_PARAMS, _MLFLOW_LENGTH = 100, 6000

# Metrics by name: STAGE/train/loss, test/accuracy.
Metrics = Mapping[str, float]


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
        finish: takes the metrics and files of a finished run; none of either where it only stops.
    """

    id: str
    log: Callable[[int, Metrics], None]
    finish: Callable[[Metrics, Sequence[Path]], None]


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

    def finish(metrics: Metrics, files: Sequence[Path]) -> None:
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

    def finish(metrics: Metrics, files: Sequence[Path]) -> None:
        run.summary.update(dict(metrics))
        if files:
            kept: Any = wandb.Artifact(f"run-{identity}", type="run")
            for file in files:
                kept.add_file(str(file))
            run.log_artifact(kept)
            run.log({f"figures/{file.stem}": wandb.Image(str(file)) for file in _figures(files)})
        run.finish(exit_code=0 if metrics else 1)

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

    def finish(metrics: Metrics, files: Sequence[Path]) -> None:
        log(1, metrics)
        for file in files:
            client.log_artifact(identity, str(file), "figures" if file.suffix == ".png" else None)
        client.set_terminated(identity, "FINISHED" if metrics else "KILLED")

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

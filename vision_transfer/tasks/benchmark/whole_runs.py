"""Whole runs against Keras: from the command to its result, as a user waits for it.

Ours is this program in a process of its own, with a cache that is empty except for the weights: its time includes
importing, compiling, decoding and checkpoints. Keras's time leaves out importing and building. What would take Keras
hours is measured for one epoch and multiplied by the number of epochs; the record states this.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vision_transfer.config import Config
from vision_transfer.errors import UserError
from vision_transfer.models.backbones.registry import backbone_rows, find_backbone
from vision_transfer.models.heads import head_layers
from vision_transfer.models.network import Network
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.files import absolute_path
from vision_transfer.runtime.jax_setup import environment_of_others
from vision_transfer.runtime.timer import MAXRSS_UNIT
from vision_transfer.tasks.benchmark.cases import Case, peer_request
from vision_transfer.tasks.benchmark.measure import layers_for_keras
from vision_transfer.tasks.benchmark.worker import PACKAGE_PARENT, last_lines, worker
from vision_transfer.training.optimizers import OptimizerSpec

WEIGHTS = "weights"
KERAS_RUN = "vision_transfer.tasks.benchmark.peers.keras_run"


@dataclass(frozen=True)
class WholeRun:
    """Our flags by command, and the works of `keras_run` for the same result, with how often each is needed.

    The last command is timed, after the earlier ones have filled the cache. `backbone` is one that Keras does not have
    and builds from our layers, at its own image size.
    """

    name: str
    commands: tuple[tuple[str, ...], ...]
    keras: tuple[tuple[str, int], ...]
    backbone: str | None = None


EXTRACTION = ("--config=feature_extraction:edition=2",)
RUNS: dict[str, WholeRun] = {
    "extraction": WholeRun(
        "feature extraction, edition 2: all images read, decoded, extracted; head of 20 epochs",
        (EXTRACTION,),
        (("extraction", 1),),
    ),
    "second_head": WholeRun(
        "the same a second time, with another head",
        (EXTRACTION, (*EXTRACTION, "--config.model.hidden=(128,)")),
        (("extraction", 1),),
    ),
    "finetuning": WholeRun(
        "fine-tuning, edition 2, all stages: ours with a bank of 4, Keras's with fresh augmentation",
        (("--config=finetune:edition=2,bank=4",),),
        (("augmented_head_epoch", 50), ("augmented_finetuning_epoch", 30)),
    ),
    "recommended": WholeRun(
        "the recommended head: all images read, decoded, extracted by EfficientNet-Lite0 at 224 pixels; 40 epochs",
        (("--config=recommended", "--config.schedule=head"),),
        (("pooled_extraction", 1),),
        "efficientnet_lite0",
    ),
}


def compare_whole_runs(
    config: Config, names: tuple[str, ...], python: str, cache: Path, screen: Screen
) -> list[dict[str, Any]]:
    """A record per run: seconds of both, their ratio, and peak memory.

    Raises:
        UserError: an unknown run, no data set, or a command that failed.
    """
    if config.dataset.root is None:
        raise UserError("config.dataset.root: not set; whole runs need a folder with train, validation and test")
    for name in names:
        if name not in RUNS:
            raise UserError(f"config.benchmark.whole_runs: got {name!r}; allowed are {', '.join(RUNS)}")
    root = absolute_path(config.dataset.root)
    measured: dict[str, tuple[float, int, dict[str, Any]]] = {}
    records = []
    for name in names:
        run = RUNS[name]
        screen.say(f"{run.name}: Keras …")
        for work, _ in run.keras:
            if work not in measured:
                measured[work] = _keras({**_layers(run), "work": work, "root": root}, python)
        screen.say(f"{run.name}: ours …")
        seconds, memory, results = _ours(run, root, cache)
        keras_seconds = sum(measured[work][0] * times for work, times in run.keras)
        keras_memory = max(measured[work][1] for work, _ in run.keras)
        records.append(
            {
                "name": run.name,
                "commands": [" ".join(command) for command in run.commands],
                "ours": {"seconds": seconds, "peak_memory_bytes": memory, "test": results},
                "keras": {
                    "seconds": keras_seconds,
                    "peak_memory_bytes": keras_memory,
                    "measured": {work: {"seconds": measured[work][0], "times": times} for work, times in run.keras},
                    **measured[run.keras[0][0]][2],
                },
                "ratio": seconds / keras_seconds,
                "memory_ratio": memory / keras_memory,
            }
        )
    return records


def _layers(run: WholeRun) -> dict[str, Any]:
    """The backbone that Keras does not have, averaged over places, in Keras's terms."""
    if run.backbone is None:
        return {}
    size = find_backbone(run.backbone).image_size
    pooled = backbone_rows(run.backbone, global_average=True)
    network = Network(pooled, head_layers(1, flatten=False), (size, size, 3))
    case = Case("forward", network, "all", "images", 1, OptimizerSpec("adam"))
    without_head = layers_for_keras(case)[:-1]
    return {**peer_request(case), "keras_layers": without_head}


def _keras(request: dict[str, Any], python: str) -> tuple[float, int, dict[str, Any]]:
    with worker(f"{request['work']} in keras", KERAS_RUN, request, python) as keras:
        seconds = keras.run(1)
        return seconds, keras.end()["peak_memory_bytes"], keras.facts


def _ours(run: WholeRun, root: str, cache: Path) -> tuple[float, int, dict[str, Any]]:
    """Seconds, peak memory and test result of the last command."""
    with tempfile.TemporaryDirectory() as folder:
        own_cache, workdir = Path(folder, "cache"), Path(folder)
        if (cache / WEIGHTS).is_dir():
            shutil.copytree(cache / WEIGHTS, own_cache / WEIGHTS)
        seconds, memory = 0.0, 0
        for number, flags in enumerate(run.commands):
            workdir = Path(folder, f"run {number}")
            flags = [*flags, f"--config.dataset.root={root}", f"--workdir={workdir}"]
            seconds, memory = _launch(flags, own_cache)
        test = json.loads((workdir / "result.json").read_text(encoding="utf-8"))["test"]
        return seconds, memory, {name: test[name] for name in ("accuracy", "accuracy_ci95")}


def _launch(flags: list[str], cache: Path) -> tuple[float, int]:
    environment = environment_of_others(os.environ) | {"VISION_TRANSFER_CACHE": str(cache)}
    path = os.pathsep.join(filter(None, [str(PACKAGE_PARENT), environment.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "vision_transfer", *flags]
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        began = time.perf_counter()
        process = subprocess.Popen(command, env=environment | {"PYTHONPATH": path}, stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            printed = "\n  ".join(last_lines(log))
            raise UserError(f"{' '.join(command[2:])}: ended with status {process.returncode}:\n  {printed}")
    return seconds, usage.ru_maxrss * MAXRSS_UNIT

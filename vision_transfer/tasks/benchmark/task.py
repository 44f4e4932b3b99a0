"""The task `benchmark`: runs what the config asks for and writes tables, `benchmark.json` and a figure."""

import sys
import time
from pathlib import Path
from typing import Any

from vision_transfer.config import Config, flatten
from vision_transfer.errors import UserError
from vision_transfer.runs.folder import DEFAULT_ROOT
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.files import write_json
from vision_transfer.runtime.provenance import code_digest, versions
from vision_transfer.tasks.benchmark import tables
from vision_transfer.tasks.benchmark.ahead_of_time import compile_cases
from vision_transfer.tasks.benchmark.cases import comparison_cases, depth_cases
from vision_transfer.tasks.benchmark.figures import draw_depths
from vision_transfer.tasks.benchmark.measure import compare, measure, measure_input_path
from vision_transfer.tasks.benchmark.whole_runs import compare_whole_runs

RESULT, FIGURE = "benchmark.json", "depth.png"
PEERS = ("keras", "torch")


def benchmark(config: Config, cache: Path, workdir: Path | None, screen: Screen) -> Path:
    """Runs the benchmark that the config describes; returns its folder, which is always a new one.

    Cases are measured here; with `config.benchmark.target` compiled for absent chips; with `config.benchmark.peers`
    measured in turns with other libraries; `config.benchmark.whole_runs` compares whole runs instead. This process
    computes nothing itself, so that accelerators are free for the workers.

    Raises:
        UserError: a config that cannot be measured, or a peer that cannot be run.
    """
    peers = _listed(config.benchmark.peers)
    for name in peers:
        if name not in PEERS:
            raise UserError(f"config.benchmark.peers: got {name!r}; allowed are {', '.join(PEERS)}")
    if peers and config.benchmark.target:
        raise UserError("config.benchmark: peers are measured but a target is only compiled; give one of the two")
    python = config.benchmark.peer_python or sys.executable
    folder = _new_folder(config, workdir)
    result: dict[str, Any] = {
        "config": flatten(config),
        "code_digest": code_digest(),
        "versions": versions(),
        "began": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    if config.benchmark.target:
        trace = folder / "trace" if config.benchmark.trace else None
        result["compiled"] = compile_cases(depth_cases(config), config.benchmark.target, trace, screen)
        screen.say(tables.compiled_table(result["compiled"]))
    elif whole_runs := _listed(config.benchmark.whole_runs):
        result["whole_runs"] = compare_whole_runs(config, whole_runs, python, cache, screen)
        screen.say(tables.whole_runs_table(result["whole_runs"]))
    elif peers:
        result["compared"] = compare(config, comparison_cases(config), peers, python, cache, screen)
        screen.say(tables.comparison_table(result["compared"]))
    else:
        result["measured"] = measure(config, depth_cases(config), cache, folder, screen)
        screen.say(tables.layer_table(max(result["measured"], key=lambda record: record["table"]["flops"])))
        screen.say(tables.measured_table(result["measured"]))
        if config.dataset.root is not None:
            result["input_path"] = measure_input_path(config, config.dataset.root, cache)
            screen.say(tables.input_path_table(result["input_path"]))
    write_json(folder / RESULT, result)
    records = result.get("compiled") or result.get("measured") or []
    if any(record["work"] == "step" for record in records):
        draw_depths(records, folder / FIGURE)
    screen.say(f"Benchmark: {folder}")
    return folder


def _listed(values: tuple[str, ...]) -> tuple[str, ...]:
    """The names in a field that lists some; `keras,torch` arrives as one text from the command line."""
    return tuple(name.strip() for text in values for name in text.split(",") if name.strip())


def _new_folder(config: Config, workdir: Path | None) -> Path:
    folder = workdir or DEFAULT_ROOT / f"{config.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    if (folder / RESULT).exists():
        raise UserError(f"--workdir={folder}: already holds a benchmark; they are never reused, give another folder")
    return folder

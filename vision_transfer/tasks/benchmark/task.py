"""The task `benchmark`: runs what the config asks for and writes tables, `benchmark.json` and a figure."""

import math
import sys
import time
from pathlib import Path
from typing import Any

from vision_transfer.config import Config, flatten
from vision_transfer.errors import UserError
from vision_transfer.runs.folder import DEFAULT_ROOT
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.files import replaced_file, write_json
from vision_transfer.runtime.provenance import code_digest, versions
from vision_transfer.tasks.benchmark import tables
from vision_transfer.tasks.benchmark.ahead_of_time import compile_cases
from vision_transfer.tasks.benchmark.cases import comparison_cases, depth_cases
from vision_transfer.tasks.benchmark.measure import compare, measure, measure_input_path
from vision_transfer.tasks.benchmark.whole_runs import compare_whole_runs
from vision_transfer.tasks.figures import COLOURS, draw_or_say_why, drawable, line_style, new_axes, save_png

RESULT, FIGURE = "benchmark.json", "depth.png"
TRACE, TRACE_INDEX = "trace", "README.md"
TRACE_HELP = (
    "# Traces",
    "",
    "A folder for each case: the compiled program as text in `program.hlo.txt` and, where it was measured, a trace. To",
    "see it: `pip install xprof`, then `xprof --logdir FOLDER`; or open `FOLDER/plugins/profile/*/*.trace.json.gz` in",
    "https://ui.perfetto.dev. A case that was only compiled is one file, `NN.hlo.txt`.",
    "",
)
GIGA, MILLI = 1e9, 1e-3
STEP_TIME = "Step time, ms"
LABELS = {"images": "from images", "features": "from cached features"}


def benchmark(config: Config, cache: Path, workdir: Path | None, screen: Screen) -> Path:
    """Runs the benchmark that the config describes; returns its folder, which is always a new one.

    Cases are measured here; with `config.benchmark.target` compiled for absent chips; with `config.benchmark.peers`
    measured in turns with other libraries; `config.benchmark.whole_runs` compares whole runs instead. This process
    computes nothing itself, so that accelerators are free for the workers.

    Raises:
        UserError: a config that cannot be measured, or a peer that cannot be run.
    """
    peers = _listed(config.benchmark.peers)
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
        trace = folder / TRACE if config.benchmark.trace else None
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
    if config.benchmark.trace and records:
        _index_traces(folder / TRACE, records)
        screen.say(f"Traces: {folder / TRACE / TRACE_INDEX} says which is which, and how to open them.")
    if any(record["work"] == "step" for record in records):
        draw_or_say_why(folder / FIGURE, lambda: draw_depths(records, folder / FIGURE), screen)
    screen.say(f"Benchmark: {folder}")
    return folder


def _index_traces(folder: Path, records: list[dict[str, Any]]) -> None:
    """Writes which case each trace is of, and what opens it."""
    lines = [f"- `{number:02d}`: {' '.join(tables.case_name(record).split())}" for number, record in enumerate(records)]
    with replaced_file(folder / TRACE_INDEX) as temporary:
        temporary.write_text("\n".join([*TRACE_HELP, *lines, ""]), encoding="utf-8")


def draw_depths(records: list[dict[str, Any]], path: Path) -> None:
    """Writes a PNG with a panel each for step time, memory and FLOPs against freeze depth, from nothing to all."""
    steps = [record for record in records if record["work"] == "step"]
    specs = list(dict.fromkeys(record["freeze"] for record in steps))
    figure, panels = new_axes(13, 4.8, columns=3)
    for axes, (title, value) in zip(panels, _panels(steps).items(), strict=True):
        for number, (source, label) in enumerate(LABELS.items()):
            own = [record for record in steps if record["source"] == source]
            places = [specs.index(record["freeze"]) for record in own]
            if own:
                axes.plot(places, [value(record) for record in own], clip_on=False, label=label, **line_style(number))
            if own and title == STEP_TIME:
                quartiles = ("first_quartile", "third_quartile")
                low, high = ([record["seconds"][name] / MILLI for record in own] for name in quartiles)
                axes.fill_between(places, low, high, color=COLOURS[number], alpha=0.2, linewidth=0)
        axes.set_title(title)
        axes.set_xticks(range(len(specs)), list(map(drawable, specs)), rotation=40, ha="right")
        axes.set_xlabel("frozen")
        axes.set_ylim(bottom=0)
    panels[0].legend(frameon=False)
    measured = "compiled, not measured" if "compiled_not_measured" in steps[0] else "median and quartiles"
    figure.suptitle(f"{steps[0]['device']}, batch {steps[0]['batch']}: {measured}")
    save_png(figure, path)


def _panels(steps: list[dict[str, Any]]) -> dict[str, Any]:
    if "compiled_not_measured" in steps[0]:
        # a chip with unknown peaks leaves a gap
        unknown = {"seconds": {"": math.nan}}
        return {
            "Roofline, ms per chip": lambda record: max((record["roofline"] or unknown)["seconds"].values()) / MILLI,
            "Memory, GB per chip": lambda record: record["memory_bytes"] / GIGA,
            "GFLOP per chip": lambda record: record["compiler"]["flops"] / GIGA,
        }
    return {
        STEP_TIME: lambda record: record["seconds"]["median"] / MILLI,
        "Peak memory, GB": lambda record: (record["device_memory_bytes"] or record["peak_memory_bytes"]) / GIGA,
        "GFLOP per step": lambda record: record["table"]["flops"] / GIGA,
    }


def _listed(values: tuple[str, ...]) -> tuple[str, ...]:
    """The names in a field that lists some; `keras,torch` arrives as one text from the command line."""
    return tuple(name.strip() for text in values for name in text.split(",") if name.strip())


def _new_folder(config: Config, workdir: Path | None) -> Path:
    folder = workdir or DEFAULT_ROOT / f"{config.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    if (folder / RESULT).exists():
        raise UserError(f"--workdir={folder}: already holds a benchmark; they are never reused, give another folder")
    return folder

"""The task `benchmark`: runs what the config asks for and writes tables, `benchmark.json` and a figure."""

import json
import math
import re
import sys
import time
from pathlib import Path
from typing import Any

from vision_transfer.config import Config, flatten
from vision_transfer.errors import UserError
from vision_transfer.runs.folder import DEFAULT_ROOT
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.files import json_text, read_json, write_json, write_text
from vision_transfer.runtime.hosts import rank_of
from vision_transfer.runtime.provenance import code_digest, versions
from vision_transfer.tasks.benchmark import tables
from vision_transfer.tasks.benchmark.ahead_of_time import compile_cases
from vision_transfer.tasks.benchmark.cases import comparison_cases, depth_cases
from vision_transfer.tasks.benchmark.costs import total
from vision_transfer.tasks.benchmark.difference import RESULT
from vision_transfer.tasks.benchmark.measure import compare, dismiss, follow, measure, measure_input_path
from vision_transfer.tasks.benchmark.plan import write_plan
from vision_transfer.tasks.benchmark.whole_runs import compare_whole_runs
from vision_transfer.tasks.figures import COLOURS, draw_or_say_why, drawable, line_style, new_axes, save_png
from vision_transfer.tasks.tables import write_csv

FIGURE, MARKDOWN, CSV = "depth.png", "benchmark.md", "benchmark.csv"
# May differ between the commands that measure parts of one benchmark.
NOT_COMPARED = frozenset({"benchmark.minutes"})
DRAWN = ("measured", "compiled", "computed")
DRIVER = Path("/proc/driver/nvidia/version")
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


def benchmark_on_hosts(config: Config, cache: Path, workdir: Path | None, screen: Screen, given: str) -> None:
    """The benchmark on the devices of all hosts together, given as the flag; the first one measures, the others follow.

    Raises:
        UserError: as `benchmark`; or the config asks for what a single host does.
    """
    settings, root = config.benchmark, config.dataset.root
    alone = {name: getattr(settings, name) for name in ("target", "plan", "peers", "whole_runs", "trace")}
    named = [f"config.benchmark.{name}" for name, value in alone.items() if value]
    named += ["config.dataset.root"] if root is not None else []
    if named:
        raise UserError(
            f"--hosts={given}: several hosts measure steps and forward passes only; omit {', '.join(named)}"
        )
    if rank_of(given):
        follow(config, cache, given)
    else:
        benchmark(config, cache, workdir, screen, given)
        dismiss(config, cache, given)


def benchmark(config: Config, cache: Path, workdir: Path | None, screen: Screen, hosts: str | None = None) -> Path:
    """Runs the benchmark that the config describes; returns its folder, a new one or that of one with cases left.

    Cases are measured here; with `config.benchmark.target` compiled or computed for absent chips; with
    `config.benchmark.plan` planned for many of them by arithmetic; with `config.benchmark.peers` measured in turns with
    other libraries; `config.benchmark.whole_runs` compares whole runs instead. This process computes nothing itself, so
    that accelerators are free for the workers.

    Raises:
        UserError: a config that cannot be measured, a peer that cannot be run, or a folder of another benchmark.
    """
    peers, target = _listed(config.benchmark.peers), config.benchmark.target
    if peers and target:
        raise UserError("config.benchmark: peers are measured but a target is only compiled; give one of the two")
    python = config.benchmark.peer_python or sys.executable
    folder = workdir or DEFAULT_ROOT / f"{config.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    result: dict[str, Any] = {
        "config": {name: value for name, value in flatten(config).items() if name not in NOT_COMPARED},
        "code_digest": code_digest(also=("tasks/benchmark",)),
        "versions": versions(),
        "machine": {"driver": _driver()},
        "began": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    earlier = _unfinished(folder, result)
    if config.benchmark.plan:
        result["plan"] = write_plan(config, folder, screen)
    elif target:
        trace = folder / TRACE if config.benchmark.trace else None
        result["compiled"] = compile_cases(depth_cases(config), target, trace, screen)
    elif whole_runs := _listed(config.benchmark.whole_runs):
        result["whole_runs"] = compare_whole_runs(config, whole_runs, python, cache, screen)
        screen.say(tables.whole_runs_table(result["whole_runs"]))
    elif peers:
        result["compared"] = compare(config, comparison_cases(config), peers, python, cache, screen)
        screen.say(tables.comparison_table(result["compared"]))
    else:
        result |= earlier
        cases = depth_cases(config)

        def keep(records: list[dict[str, Any]], left: int) -> None:
            failed = sum(record["status"] == "failed" for record in records)
            device = next((record["device"] for record in records if "device" in record), None)
            result["machine"]["device"] = device
            result.update(measured=records, left=left + failed)
            write_json(folder / RESULT, result)

        largest = max(cases, key=lambda case: total(case.costs).flops)
        screen.say(tables.layer_table(largest.name, largest.costs))
        # First, since a data set that cannot be read would otherwise cost the tables of what was measured for minutes.
        if config.dataset.root is not None and "input_path" not in result:
            result["input_path"] = measure_input_path(config, config.dataset.root, cache)
        result["measured"] = measure(config, cases, cache, folder, screen, earlier.get("measured", ()), keep, hosts)
        if "input_path" in result:
            screen.say(tables.input_path_table(result["input_path"]))
    write_json(folder / RESULT, result)
    if records := result.get("compiled") or result.get("measured"):
        _show(config, records, folder, screen)
    screen.say(f"Benchmark: {folder}")
    return folder


def _show(config: Config, records: list[dict[str, Any]], folder: Path, screen: Screen) -> None:
    """Prints the cases and writes them as Markdown, CSV and figures."""
    screen.say(tables.cases_table(records))
    for doubt in tables.doubts_of(records):
        screen.say(f"* {doubt}", style="yellow")
    write_text(folder / MARKDOWN, tables.cases_markdown(records))
    write_csv(tables.csv_rows(records), folder / CSV)
    if config.benchmark.trace:
        _index_traces(folder / TRACE, records)
        screen.say(f"Traces: {folder / TRACE / TRACE_INDEX} says which is which, and how to open them.")
    steps = [record for record in records if record["work"] == "step" and record["status"] in DRAWN]
    if len({tuple(record[name] for name in ("backbone", "precision", "batch")) for record in steps}) == 1:
        draw_or_say_why(folder / FIGURE, lambda: draw_depths(steps, folder / FIGURE), screen)


def _unfinished(folder: Path, result: dict[str, Any]) -> dict[str, Any]:
    """The folder's results of the same benchmark, with cases left; empty if it holds none."""
    if not (folder / RESULT).exists():
        return {}
    earlier = read_json(folder / RESULT)
    if not earlier.get("left"):
        raise UserError(f"--workdir={folder}: already holds a benchmark; they are never reused, give another folder")
    same = json.loads(json_text(result))
    differing = [name for name in ("config", "code_digest", "versions") if earlier[name] != same[name]]
    differing += ["driver"] if earlier["machine"]["driver"] != same["machine"]["driver"] else []
    if differing:
        raise UserError(
            f"--workdir={folder}: holds a benchmark with cases left, of another {' and '.join(differing)}; continue it "
            "as it was begun, or give another folder"
        )
    return earlier


def _driver() -> str | None:
    """Version of NVIDIA's driver; None where there is none."""
    found = re.search(r"Module\s+([\d.]+)", DRIVER.read_text(encoding="utf-8")) if DRIVER.exists() else None
    return None if found is None else found[1]


def _index_traces(folder: Path, records: list[dict[str, Any]]) -> None:
    """Writes which case each trace is of, and what opens it."""
    names = [Path(record.get("trace") or f"{number:02d}").name for number, record in enumerate(records)]
    lines = [f"- `{name}`: {tables.case_line(record)}" for name, record in zip(names, records, strict=True)]
    write_text(folder / TRACE_INDEX, "\n".join([*TRACE_HELP, *lines, ""]))


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
    measured = "median and quartiles" if steps[0]["seconds"] else f"{steps[0]['status']}, not measured"
    figure.suptitle(f"{steps[0]['device']}, batch {steps[0]['batch']}: {measured}")
    save_png(figure, path)


def _panels(steps: list[dict[str, Any]]) -> dict[str, Any]:
    if steps[0]["seconds"] is None:
        # a chip with unknown peaks leaves a gap
        unknown = {"seconds": {"": math.nan}}
        return {
            "Roofline, ms per chip": lambda record: max((record["roofline"] or unknown)["seconds"].values()) / MILLI,
            "Memory, GB per chip": lambda record: record.get("program_bytes", math.nan) / GIGA,
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

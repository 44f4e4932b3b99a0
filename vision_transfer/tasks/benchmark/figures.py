"""The figure of time, memory and FLOPs of a step against the number of frozen layers."""

import math
from pathlib import Path
from typing import Any

from vision_transfer.tasks.study.figures import COLOURS, line_style, new_axes, save_png

GIGA, MILLI = 1e9, 1e-3
STEP_TIME = "Step time, ms"
LABELS = {"images": "from images", "features": "from cached features"}


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
        axes.set_xticks(range(len(specs)), specs, rotation=40, ha="right")
        axes.set_xlabel("frozen")
        axes.set_ylim(bottom=0)
    panels[0].legend(frameon=False)
    measured = "compiled, not measured" if "compiled_not_measured" in steps[0] else "median and quartiles"
    figure.suptitle(f"{steps[0]['device']}, batch {steps[0]['batch']}: {measured}")
    save_png(figure, path)


def _panels(steps: list[dict[str, Any]]) -> dict[str, Any]:
    if "compiled_not_measured" in steps[0]:
        return {
            "Roofline, ms per chip": _roofline_milliseconds,
            "Memory, GB per chip": lambda record: record["memory_bytes"] / GIGA,
            "GFLOP per chip": lambda record: record["compiler"]["flops"] / GIGA,
        }
    return {
        STEP_TIME: lambda record: record["seconds"]["median"] / MILLI,
        "Peak memory, GB": lambda record: (record["device_memory_bytes"] or record["peak_memory_bytes"]) / GIGA,
        "GFLOP per step": lambda record: record["table"]["flops"] / GIGA,
    }


def _roofline_milliseconds(record: dict[str, Any]) -> float:
    """NaN, which leaves a gap, for a chip with unknown peaks."""
    return max(record["roofline"]["seconds"].values()) / MILLI if record["roofline"] else math.nan

"""The figure of time, memory and FLOPs of a step against the number of frozen layers."""

import math
from pathlib import Path
from typing import Any

from vision_transfer.runtime.files import replaced_file

GIGA, MILLI = 1e9, 1e-3
STEP_TIME = "Step time, ms"
# Okabe and Ito's palette, which colour-blind readers can tell apart; markers differ too.
STYLES = {
    "images": {"color": "#0072B2", "marker": "o", "label": "from images"},
    "features": {"color": "#D55E00", "marker": "s", "label": "from cached features"},
}


def draw_depths(records: list[dict[str, Any]], path: Path) -> None:
    """Writes a PNG with a panel each for step time, memory and FLOPs against freeze depth, from nothing to all."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    steps = [record for record in records if record["work"] == "step"]
    specs = list(dict.fromkeys(record["freeze"] for record in steps))
    figure = Figure(figsize=(13, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (title, value) in zip(figure.subplots(1, 3), _panels(steps).items(), strict=True):
        for source, style in STYLES.items():
            own = [record for record in steps if record["source"] == source]
            if not own:
                continue
            places = [specs.index(record["freeze"]) for record in own]
            axes.plot(places, [value(record) for record in own], linewidth=2, markersize=6, clip_on=False, **style)
            if title == STEP_TIME:
                quartiles = ("first_quartile", "third_quartile")
                low, high = ([record["seconds"][name] / MILLI for record in own] for name in quartiles)
                axes.fill_between(places, low, high, color=style["color"], alpha=0.2, linewidth=0)
        axes.set_title(title)
        axes.set_xticks(range(len(specs)), specs, rotation=40, ha="right")
        axes.set_xlabel("frozen")
        axes.set_ylim(bottom=0)
        axes.grid(axis="y", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].legend(frameon=False)
    measured = "compiled, not measured" if "compiled_not_measured" in steps[0] else "median and quartiles"
    figure.suptitle(f"{steps[0]['device']}, batch {steps[0]['batch']}: {measured}")
    with replaced_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)


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

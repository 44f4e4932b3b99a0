"""Steps on many chips and millions of images, by arithmetic from the layer table and the chip's data sheet.

Nothing is run or compiled. Assumed are: products and memory at half of the chip's peaks, whichever takes longer; an
all-reduce over a ring of all links, after the step and not beside it; float32 gradients; images as uint8 and cached
features in the network's precision, each read once a step by the host of the chip.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vision_transfer.config import Config
from vision_transfer.errors import UserError
from vision_transfer.freezing import counts
from vision_transfer.models.network import all_parameter_shapes
from vision_transfer.runtime.console import Screen, duration
from vision_transfer.runtime.files import write_text
from vision_transfer.tasks.benchmark.cases import Case, depth_cases
from vision_transfer.tasks.benchmark.chips import PLANNED, Chip, known_chip
from vision_transfer.tasks.benchmark.costs import PARAMETER_BYTES, forward_costs, total
from vision_transfer.tasks.tables import markdown_table, screen_table

# Of the peaks: what well-shaped programs reach, and this program's targets on an H100.
SHARE_OF_PEAK = 0.5
PAGE = "plan.md"
GIGA, MEGA, MILLI = 1e9, 1e6, 1e-3
HEADER = ("backbone", "frozen", "from", "chips", "step, ms", "gradients, MB", "all-reduce, ms", "efficiency")
HEADER += ("images/s", "input a chip, GB/s", "epoch")
CACHE_HEADER = ("backbone", "frozen", "cached", "chips", "features, GB", "a chip, GB", "computed once in", "pays after")
Record = dict[str, Any]


def write_plan(config: Config, folder: Path, screen: Screen) -> list[Record]:
    """Shows and writes the plan of `config.benchmark.plan` images on each number of chips; returns its records.

    Raises:
        UserError: the target is no chip whose data sheet is in `chips.py`.
    """
    settings = config.benchmark
    chip = _chip(settings.target)
    steps = [case for case in depth_cases(config) if case.work == "step"]
    records = [record for count in settings.plan_chips for record in planned(steps, chip, count, settings.plan)]
    title = f"{settings.plan:,} images on {settings.target}, {config.batch_size} a chip, {config.precision}"
    tables = {
        title: (HEADER, [_cells(record) for record in records]),
        "Caches": (CACHE_HEADER, [_cache_cells(record) for record in records if record["cached"]]),
    }
    note = " ".join(str(__doc__).partition("\n\n")[2].split())
    parts = []
    for name, (header, rows) in tables.items():
        screen.say(screen_table(name, header, rows, 4))
        parts.append(f"# {name}\n\n{markdown_table(header, rows, 4, note)}")
    screen.say(note)
    write_text(folder / PAGE, "\n".join(parts))
    return records


def planned(steps: Sequence[Case], chip: Chip, chips: int, images: int) -> list[Record]:
    """A record for each step on some chips: times in seconds, sizes in bytes, an epoch of so many images.

    `efficiency` is the share of the time in which chips compute; it and what follows from it are None where the data
    sheet has no links.
    """
    from_images = {_work(case): _step_seconds(case, chip) for case in steps if case.source == "images"}
    return [_planned(case, chip, chips, images, from_images.get(_work(case))) for case in steps]


def _planned(case: Case, chip: Chip, chips: int, images: int, from_images: float | None) -> Record:
    step = _step_seconds(case, chip)
    parameters = counts(all_parameter_shapes(case.network), case.mask).trainable
    gradients = parameters * PARAMETER_BYTES
    reduce = None
    if chips == 1:
        reduce = 0.0
    elif chip.interconnect:
        # A ring sends each byte twice, except the share that stays on its chip.
        reduce = 2 * (chips - 1) / chips * gradients / chip.interconnect
    a_step = step + (reduce or 0.0)
    row = math.prod(case.input_shape) * (1 if case.cached is None else case.network.numerics.dtype.itemsize)
    record: Record = {
        **case.identity,
        "cached": case.cached,
        "chips": chips,
        "step_seconds": step,
        "gradient_bytes": gradients,
        "all_reduce_seconds": reduce,
        "efficiency": None if reduce is None else step / a_step,
        "images_per_second": None if reduce is None else chips * case.batch / a_step,
        "input_bytes_per_second": case.batch * row / a_step,
        "epoch_seconds": None if reduce is None else images * a_step / (chips * case.batch),
    }
    if case.cached is None:
        return record
    whole, rest = (
        total(forward_costs(case.network, case.batch)),
        total(forward_costs(case.network, case.batch, case.start)),
    )
    extraction = _seconds(whole.flops - rest.flops, whole.bytes - rest.bytes, case, chip)
    once = images * extraction / (chips * case.batch)
    saved = None if from_images is None else images * (from_images - step) / (chips * case.batch)
    return record | {
        "cache_bytes": images * row,
        "extraction_seconds": once,
        "pays_after_epochs": math.ceil(once / saved) if saved and saved > 0 else None,
    }


def _work(case: Case) -> tuple[Any, ...]:
    return case.backbone, case.network.numerics.name, case.freeze, case.batch


def _step_seconds(case: Case, chip: Chip) -> float:
    cost = total(case.costs)
    return _seconds(cost.flops, cost.bytes, case, chip)


def _seconds(flops: float, moved: float, case: Case, chip: Chip) -> float:
    bounds = flops / chip.flops[case.network.numerics.name], moved / chip.bandwidth
    return max(bounds) / SHARE_OF_PEAK


def _chip(target: str) -> Chip:
    if target not in PLANNED:
        raise UserError(
            f"config.benchmark.target: got {target!r}; a plan needs a chip with a data sheet: {', '.join(PLANNED)}"
        )
    chip = known_chip(PLANNED[target])
    assert chip is not None, "every chip of the list has a data sheet"
    return chip


def _cells(record: Record) -> list[str]:
    def text(name: str, form: str, unit: float = 1.0) -> str:
        return "–" if record[name] is None else format(record[name] / unit, form)

    efficiency = record["efficiency"]

    return [
        record["backbone"],
        record["freeze"],
        record["cached"] or "images",
        f"{record['chips']}",
        text("step_seconds", ".2f", MILLI),
        text("gradient_bytes", ",.1f", MEGA),
        text("all_reduce_seconds", ".2f", MILLI),
        "–" if efficiency is None else f"{100 * efficiency:.0f} %",
        text("images_per_second", ",.0f"),
        text("input_bytes_per_second", ".2f", GIGA),
        "–" if record["epoch_seconds"] is None else duration(record["epoch_seconds"]),
    ]


def _cache_cells(record: Record) -> list[str]:
    after = record["pays_after_epochs"]
    return [
        record["backbone"],
        record["freeze"],
        record["cached"],
        f"{record['chips']}",
        f"{record['cache_bytes'] / GIGA:,.0f}",
        f"{record['cache_bytes'] / record['chips'] / GIGA:,.1f}",
        duration(record["extraction_seconds"]),
        "never" if after is None else f"{after} epoch{'s' if after > 1 else ''}",
    ]

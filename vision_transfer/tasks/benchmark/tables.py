"""The numbers of a benchmark as tables for the screen, and those of its cases as Markdown and CSV."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.table import Table

from vision_transfer.tasks.benchmark.costs import LayerCost
from vision_transfer.tasks.benchmark.roofline import CASE
from vision_transfer.tasks.tables import markdown_table

GIGA, MEGA, MILLI = 1e9, 1e6, 1e-3
# Milliseconds.
TWO_DIGITS_BELOW, NO_DIGITS_FROM = 10, 1000
Record = dict[str, Any]


@dataclass(frozen=True)
class Column:
    """A figure of a case: its name with the unit in CSV files, how it is read, and how tables show it.

    Without a title it is in CSV files only.
    """

    name: str
    value: Callable[[Record], Any]
    title: str = ""
    text: Callable[[Any], str] = str


def _of(*path: str) -> Callable[[Record], Any]:
    """Reads a value at a path of keys; None where the record lacks one of them."""

    def read(record: Record) -> Any:
        value: Any = record
        for key in path:
            value = None if value is None else value.get(key)
        return value

    return read


def _digits(form: str, unit: float = 1.0) -> Callable[[float], str]:
    return lambda value: format(value / unit, form)


def _sent(record: Record) -> Any:
    exchanged = record.get("collectives")
    return None if exchanged is None else sum(entry["bytes"] for entry in exchanged.values())


def _roofline_seconds(record: Record) -> Any:
    return None if record.get("roofline") is None else max(record["roofline"]["seconds"].values())


# Device memory, or that of the process, as a CPU does not tell the former; the program's where nothing ran.
def _memory(record: Record) -> Any:
    names = ("device_memory_bytes", "peak_memory_bytes", "program_bytes")
    return next((record[name] for name in names if record.get(name)), None)


COLUMNS = (
    *(Column(name, _of(name)) for name in (*CASE, "cached", "status", "reason", "device", "library")),
    Column("seconds", _of("seconds"), "ms", lambda seconds: _milliseconds(seconds)),
    Column("images_per_second", _of("images_per_second"), "images/s", _digits(",.1f")),
    Column("mfu", _of("mfu"), "MFU", _digits(".2f")),
    Column("bandwidth_share", _of("bandwidth_share"), "of the\nGB/s", _digits(".2f")),
    Column("compiler_seconds", _of("compiler_seconds"), "compiler\nms", _digits(",.3f", MILLI)),
    Column("roofline_seconds", _roofline_seconds, "roofline\nms", _digits(",.3f", MILLI)),
    Column("bound", _of("roofline", "bound"), "bound\nby"),
    Column("flops_per_byte", _of("roofline", "flops_per_byte"), "FLOP\nper byte", _digits(",.0f")),
    Column("table_flops", _of("table", "flops"), "GFLOP", _digits(",.1f", GIGA)),
    Column("table_bytes", _of("table", "bytes")),
    Column("compiler_flops_per_device", _of("compiler", "flops")),
    Column("compiler_bytes_per_device", _of("compiler", "bytes"), "GB\nmoved", _digits(",.2f", GIGA)),
    Column("peak_memory_bytes", _memory, "GB\nheld", _digits(".2f", GIGA)),
    Column("program_bytes", _of("program_bytes")),
    Column("sent_bytes", _sent, "MB\nsent", _digits(",.1f", MEGA)),
    Column("host_to_device_bytes", _of("feed", "host_to_device_bytes"), "MB\nfed", _digits(",.1f", MEGA)),
    Column("fed_images_per_second", _of("feed", "images_per_second"), "fed\nimages/s", _digits(",.0f")),
    Column("joules_per_image", _of("joules_per_image"), "J per\nimage", _digits(".3f")),
    Column("compile_seconds", _of("compile_seconds"), "compile\ns", _digits(".1f")),
)
# Columns of the screen, where cases were measured and where they were not.
SCREEN = ("seconds", "images_per_second", "mfu", "bandwidth_share", "bound", "peak_memory_bytes", "compile_seconds")
SCREEN_NOT_MEASURED = (
    *("compiler_seconds", "roofline_seconds", "bound", "table_flops"),
    *("compiler_bytes_per_device", "peak_memory_bytes", "sent_bytes"),
)
MEANINGS = (
    "ms: median of the repeats ± half the interquartile range. MFU, share of the bandwidth and roofline: of {flops} "
    "and {bandwidth:,.0f} GB/s ({source}); the roofline's time is the longest of products, memory and links. GFLOP: of "
    "the layer table, for the batch; GB moved: the compiler's count, per device. GB held: peak of the device, of the "
    "process on a CPU, of the program where nothing ran. MB and images/s fed: the input path alone."
)
NOT_MEASURED = {
    "compiled": "Compiled, not measured; per chip, but GFLOP for the batch of all chips. Compiler ms: its expected "
    "cycles, without collectives.",
    "computed": "Computed from the chip's data sheet, neither compiled nor measured; GB moved is before fusion.",
}


def cases_table(records: list[Record]) -> Table:
    """The figures of cases that fit a narrow screen; `cases_markdown` has them all."""
    title, columns, caption = _headings(records)
    shown = SCREEN if any(record["seconds"] for record in records) else SCREEN_NOT_MEASURED
    columns = [column for column in columns if column.name in shown]
    several = len({(record["backbone"], record["precision"]) for record in records}) > 1
    if not several:
        title += f": {records[0]['backbone']} {records[0]['precision']}"
    table = plain_table(title, [column.title for column in columns], caption)
    for record in records:
        table.add_row(case_name(record, network=several), *_cells(record, columns))
    return table


def cases_markdown(records: list[Record]) -> str:
    """`cases_table` as Markdown, with the doubts as a list below it."""
    title, columns, caption = _headings(records)
    header = ("case", *(column.title.replace("\n", " ") for column in columns))
    rows = [(case_line(record), *_cells(record, columns)) for record in records]
    doubts = "".join(f"\n- {line}" for line in doubts_of(records))
    return f"# {title}\n\n{markdown_table(header, rows, 1, caption)}{doubts}\n"


def csv_rows(records: list[Record]) -> list[Record]:
    """All columns in basic units, a row per case; quartiles and medians have columns of their own."""
    rows = []
    for record in records:
        values = {column.name: column.value(record) for column in COLUMNS}
        spread = values.pop("seconds") or {}
        own = {f"seconds_{name}": spread.get(name) for name in ("first_quartile", "median", "third_quartile")}
        rows.append(values | own | {"doubts": "; ".join(record.get("doubts", ()))})
    return rows


def doubts_of(records: list[Record]) -> list[str]:
    """Numbers that are impossible or contradict others: a sentence for each, with its case."""
    return [f"{case_line(record)}: {doubt}" for record in records for doubt in record.get("doubts", ())]


def _headings(records: list[Record]) -> tuple[str, list[Column], str]:
    columns = [
        column for column in COLUMNS if column.title and any(column.value(record) is not None for record in records)
    ]
    first = next((record for record in records if "device" in record), {})
    caption = NOT_MEASURED.get(first.get("status", ""), "")
    if peaks := {record["precision"]: record["peak"] for record in records if record.get("peak")}:
        flops = ", ".join(f"{peak['flops'] / GIGA:,.0f} GFLOP/s in {precision}" for precision, peak in peaks.items())
        peak = first["peak"]
        caption = MEANINGS.format(flops=flops, bandwidth=peak["bandwidth"] / GIGA, source=peak["source"])
    if any(record.get("doubts") for record in records):
        caption += " *: doubtful, see below."
    return f"{first.get('device')}, {first.get('library')}", columns, caption


def _cells(record: Record, columns: list[Column]) -> list[str]:
    if record["status"] in ("failed", "out of memory", "not tried"):
        return [record["status"], *[""] * (len(columns) - 1)]
    values = [(column, column.value(record)) for column in columns]
    cells = ["" if value is None else column.text(value) for column, value in values]
    return [f"{cells[0]}{'*' if record.get('doubts') else ''}", *cells[1:]]


def comparison_table(records: list[Record]) -> Table:
    """A row per case and library."""
    libraries = records[0]["libraries"]
    title = ", ".join(f"{name}: {entry['library']} on {entry['device']}" for name, entry in libraries.items())
    caption = (
        f"ms: median of {libraries['ours']['seconds']['repeats']} repeats in turns ± half the interquartile range. "
        "GB: peak of the process. Ratios: of medians (quartiles of the ratios within each repeat), and of peak memory."
    )
    table = plain_table(title, ("ms", "GB", "ours / its time", "memory"), caption)
    for record in records:
        table.add_row(record["name"], style="bold")
        for library, entry in record["libraries"].items():
            ratio = record["ratios"].get(library)
            table.add_row(
                f"  {library}",
                _milliseconds(entry["seconds"]),
                f"{entry['peak_memory_bytes'] / GIGA:.2f}",
                "{:.2f} ({:.2f}–{:.2f})".format(ratio["time"], *ratio["time_quartiles"]) if ratio else "",
                f"{ratio['peak_memory']:.2f}" if ratio else "",
            )
            if ratio and "time_beside_images" in ratio:
                beside = (f"{ratio[name]:.2f}" for name in ("time_beside_images", "peak_memory_beside_images"))
                table.add_row(f"  {library}, from images", "", "", *beside)
    return table


def input_path_table(record: Record) -> Table:
    """Images per second of the input path, also as a multiple of the step's."""
    step = record["step"]["images_per_second"]
    table = plain_table("Input path", ("images/s", "times the step"), "Decoding happens once, feeding in every epoch.")
    table.add_row(f"used by {record['step']['name']}", f"{step:,.0f}", "")
    for name in ("decoded", "fed"):
        table.add_row(name, f"{record[name]:,.0f}", f"{record[name] / step:,.1f}")
    return table


def whole_runs_table(records: list[Record]) -> Table:
    """Our whole runs beside Keras's."""
    title = f"Whole runs, ours and {records[0]['keras']['library']}"
    caption = "Ours: from the command to its end. ≈: one epoch of each kind was measured in Keras and multiplied."
    table = plain_table(title, ("ours, s", "Keras, s", "ratio", "memory"), caption)
    for record in records:
        measured = record["keras"]["measured"].values()
        sign = "≈ " if any(entry["times"] > 1 for entry in measured) else ""
        table.add_row(
            record["name"],
            f"{record['ours']['seconds']:,.0f}",
            f"{sign}{record['keras']['seconds']:,.0f}",
            f"{record['ratio']:.3f}",
            f"{record['memory_ratio']:.2f}",
        )
    return table


def layer_table(name: str, costs: list[LayerCost]) -> Table:
    """FLOPs and bytes of a step by layer, from the layer table."""
    columns = ("forward GFLOP", "input gradient", "kernel gradient", "GB moved")
    table = plain_table(f"Per layer: {name}", columns, "From the layer table, for the whole batch.")
    for row in costs:
        parts = [row.forward, row.input_gradient, row.kernel_gradient]
        table.add_row(
            row.name,
            *(f"{part.flops / GIGA:,.3f}" if part.flops else "" for part in parts),
            f"{sum(part.bytes for part in parts) / GIGA:,.3f}",
        )
    return table


def plain_table(title: str, columns: Any, caption: str) -> Table:
    """A table without rows yet, and with numbers right of each row's name."""
    table = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
    table.box, table.padding, table.pad_edge = box.SIMPLE_HEAD, (0, 1, 0, 0), False
    table.add_column("", overflow="fold")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def case_line(record: Record) -> str:
    """`case_name` with its network, in one line."""
    return " ".join(case_name(record).split())


def case_name(record: Record, *, network: bool = True) -> str:
    """The case in short lines, which fit a narrow screen; with its network, or without."""
    origin = f"cached {record['cached']}" if record["cached"] else "images"
    name = f"step, frozen: {record['freeze']}\n  from {origin}, batch {record['batch']}"
    if record["work"] == "forward":
        name = f"forward, batch {record['batch']}"
    return f"{record['backbone']} {record['precision']}\n  {name}" if network else name


def _milliseconds(seconds: Record) -> str:
    half = (seconds["third_quartile"] - seconds["first_quartile"]) / 2 / MILLI
    median = seconds["median"] / MILLI
    digits = 2 if median < TWO_DIGITS_BELOW else 0 if median >= NO_DIGITS_FROM else 1
    return f"{median:,.{digits}f} ± {half:,.{digits}f}"

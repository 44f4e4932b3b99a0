"""The numbers of a benchmark as tables for the screen."""

from typing import Any

from rich import box
from rich.table import Table

GIGA, MEGA, MILLI = 1e9, 1e6, 1e-3
# Milliseconds.
TWO_DIGITS_BELOW, NO_DIGITS_FROM = 10, 1000
Record = dict[str, Any]


def measured_table(records: list[Record]) -> Table:
    """Times, rates and memory of measured cases."""
    peak = records[0]["peak"]
    caption = (
        f"ms: median of {records[0]['seconds']['repeats']} repeats ± half the interquartile range. "
        f"MFU: the table's FLOPs per second over {peak['flops'] / GIGA:,.0f} GFLOP/s ({peak['source']}). "
        "GB: peak device memory; on a CPU, of the whole process."
    )
    if any(record["mfu"] > 1 for record in records):
        caption += (
            " *: above 1, so no share of a peak: the peak was measured while the machine was busy, or the convolutions "
            "take fewer FLOPs than the table counts (Winograd's, on a CPU)."
        )
    title = f"{records[0]['device']}, {records[0]['library']}"
    table = _table(title, ("ms", "images/s", "MFU", "GFLOP", "GB", "compile s"), caption)
    for record in records:
        table.add_row(
            case_name(record),
            _milliseconds(record["seconds"]),
            f"{record['images_per_second']:,.1f}",
            f"{record['mfu']:.2f}{'*' if record['mfu'] > 1 else ''}",
            f"{record['table']['flops'] / GIGA:,.1f}",
            f"{(record['device_memory_bytes'] or record['peak_memory_bytes']) / GIGA:.2f}",
            f"{record['compile_seconds']:.1f}",
        )
    return table


def compiled_table(records: list[Record]) -> Table:
    """The compiler's estimates of cases, per chip."""
    title = f"Compiled for {records[0]['device']}, not measured; all per chip"
    columns = ("GFLOP", "GB\nmoved", "GB\nheld", "compiler\nms", "roofline\nms", "bound\nby", "MB\nsent")
    caption = (
        "GFLOP and GB moved as the compiler counts them; compiler ms: its expected cycles, without collectives; "
        "roofline: the longest of products, memory and links."
    )
    table = _table(title, columns, caption)
    for record in records:
        roofline, estimate = record["roofline"], record["compiler_seconds"]
        exchanged = sum(entry["bytes"] for entry in record["collectives"].values())
        table.add_row(
            case_name(record),
            f"{record['compiler']['flops'] / GIGA:,.1f}",
            f"{record['compiler']['bytes'] / GIGA:,.2f}",
            f"{record['memory_bytes'] / GIGA:.2f}",
            "unknown" if estimate is None else f"{estimate / MILLI:.3f}",
            "unknown" if roofline is None else f"{max(roofline['seconds'].values()) / MILLI:.3f}",
            "" if roofline is None else roofline["bound"],
            f"{exchanged / MEGA:.1f}",
        )
    return table


def comparison_table(records: list[Record]) -> Table:
    """A row per case and library."""
    libraries = records[0]["libraries"]
    title = ", ".join(f"{name}: {entry['library']} on {entry['device']}" for name, entry in libraries.items())
    caption = (
        f"ms: median of {libraries['ours']['seconds']['repeats']} repeats in turns ± half the interquartile range. "
        "GB: peak of the process. Ratios: of medians (quartiles of the ratios within each repeat), and of peak memory."
    )
    table = _table(title, ("ms", "GB", "ours / its time", "memory"), caption)
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
    table = _table("Input path", ("images/s", "times the step"), "Decoding happens once, feeding in every epoch.")
    table.add_row(f"used by {record['step']['name']}", f"{step:,.0f}", "")
    for name in ("decoded", "fed"):
        table.add_row(name, f"{record[name]:,.0f}", f"{record[name] / step:,.1f}")
    return table


def whole_runs_table(records: list[Record]) -> Table:
    """Our whole runs beside Keras's."""
    title = f"Whole runs, ours and {records[0]['keras']['library']}"
    caption = "Ours: from the command to its end. ≈: one epoch of each kind was measured in Keras and multiplied."
    table = _table(title, ("ours, s", "Keras, s", "ratio", "memory"), caption)
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


def layer_table(record: Record) -> Table:
    """FLOPs and bytes of a step by layer, from the layer table."""
    columns = ("forward GFLOP", "input gradient", "kernel gradient", "GB moved")
    table = _table(f"Per layer: {record['name']}", columns, "From the layer table, for the whole batch.")
    for row in record["table"]["layers"]:
        parts = [row["forward"], row["input_gradient"], row["kernel_gradient"]]
        table.add_row(
            row["name"],
            *(f"{part['flops'] / GIGA:,.3f}" if part["flops"] else "" for part in parts),
            f"{sum(part['bytes'] for part in parts) / GIGA:,.3f}",
        )
    return table


def _table(title: str, columns: Any, caption: str) -> Table:
    table = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
    table.box, table.padding, table.pad_edge = box.SIMPLE_HEAD, (0, 1, 0, 0), False
    table.add_column("", overflow="fold")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def case_name(record: Record) -> str:
    """The case in two short lines, which fit a narrow screen."""
    if record["work"] == "forward":
        return f"forward, batch {record['batch']}"
    origin = f"cached {record['cached']}" if record["cached"] else "images"
    return f"step, frozen: {record['freeze']}\n  from {origin}, batch {record['batch']}"


def _milliseconds(seconds: Record) -> str:
    half = (seconds["third_quartile"] - seconds["first_quartile"]) / 2 / MILLI
    median = seconds["median"] / MILLI
    digits = 2 if median < TWO_DIGITS_BELOW else 0 if median >= NO_DIGITS_FROM else 1
    return f"{median:,.{digits}f} ± {half:,.{digits}f}"

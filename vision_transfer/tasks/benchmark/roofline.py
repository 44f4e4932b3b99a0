"""The roofline of a case: what bounds it on a chip; and what no measurement can be, with its likely cause.

Source: Williams, Waterman and Patterson, "Roofline", Communications of the ACM 52 (2009). The time of a program is at
least that of its FLOPs at the chip's peak, and that of its bytes at the memory's bandwidth; over several chips, also
that of the bytes they exchange.
"""

from collections.abc import Mapping, Sequence
from typing import Any

Record = Mapping[str, Any]
# Fields that tell one case from another.
CASE = ("backbone", "precision", "work", "freeze", "source", "batch")
# Fields that a case shares with one that it can be compared to.
SAME = ("backbone", "precision", "work", "batch")
# Ratio of times from which a case is called slower.
NOTICEABLE = 1.05
# As many times its roofline's time, a case spends most of it on starting operations.
FAR_ABOVE_ROOF = 10


def case_key(record: Record) -> tuple[Any, ...]:
    """The values that tell a record's case from the others of a benchmark."""
    return tuple(record[name] for name in CASE)


def roofline(flops: float, moved: float, peak: Mapping[str, Any], link_seconds: float = 0.0) -> dict[str, Any]:
    """The seconds of each bound, the one that holds, and FLOPs per byte of the program and where the roof's edge is.

    Args:
        flops: of one run of the program on the devices of the peak.
        moved: bytes between their memory and their cores.
        peak: `flops` per second, `bandwidth` in bytes per second, and `source`, of the devices together.
        link_seconds: time that the links between chips need.
    """
    seconds = {"products": flops / peak["flops"], "memory": moved / peak["bandwidth"], "links": link_seconds}
    return {
        "seconds": seconds,
        "bound": max(seconds, key=lambda name: seconds[name]),
        "flops_per_byte": flops / moved,
        "edge_flops_per_byte": peak["flops"] / peak["bandwidth"],
        "source": peak["source"],
    }


def with_doubts(records: Sequence[Record]) -> list[dict[str, Any]]:
    """The records with `doubts`, sentences about figures that cannot be, or that contradict another record's."""
    return [{**record, "doubts": _doubts(record, records)} for record in records]


def _doubts(record: Record, records: Sequence[Record]) -> list[str]:
    if record.get("seconds") is None:
        return []
    found: list[str] = []
    measured_peak = record["peak"]["source"].startswith("measured")
    if record["mfu"] > 1:
        cause = (
            "the peak was measured while the machine was busy, or the convolutions take fewer FLOPs than the table "
            "counts (Winograd's)"
            if measured_peak
            else "the products were rounded to a faster precision than the config asks for, or this is another variant "
            "of the chip than the table has"
        )
        found.append(f"MFU {record['mfu']:.2f} is above 1: {cause}")
    if record["bandwidth_share"] > 1:
        found.append(
            f"{record['bandwidth_share']:.2f} of the memory's bandwidth: the compiler counts bytes that stay in caches"
        )
    median = record["seconds"]["median"]
    for other in records:
        if other.get("seconds") is None or any(other[name] != record[name] for name in SAME):
            continue
        more = _more_work(record, other)
        if more and median > NOTICEABLE * other["seconds"]["median"]:
            ratio = median / other["seconds"]["median"]
            found.append(f"{ratio:.2f} times as long as {more}, which has more to do: {_cause(record, other)}")
    return found


def _more_work(record: Record, other: Record) -> str:
    """The other case in words if it has more FLOPs by the layer table, from images; empty otherwise."""
    if other["source"] != "images" or record["table"]["flops"] >= other["table"]["flops"]:
        return ""
    if record["freeze"] == other["freeze"]:
        return "the step from images"
    return f"the step with more trained (frozen: {other['freeze']})" if record["source"] == "images" else ""


def _cause(record: Record, other: Record) -> str:
    if record["seconds"]["first_quartile"] <= other["seconds"]["third_quartile"]:
        return "the quartiles overlap, so this is most likely noise; measure with more repeats"
    bound = max(record["roofline"]["seconds"].values())
    if record["seconds"]["median"] > FAR_ABOVE_ROOF * bound:
        return (
            f"it takes more than {FAR_ABOVE_ROOF} times what its roofline says, so the time goes into starting small "
            "operations; a larger batch tells more"
        )
    return "the compiler chose other algorithms for the two (autotuning), or the chip's clock fell; look at the traces"

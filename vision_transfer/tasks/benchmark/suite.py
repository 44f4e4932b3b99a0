"""The cases of a benchmark one after the other: each record is kept at once, and the same command continues."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vision_transfer.config import Config
from vision_transfer.errors import UserError
from vision_transfer.runtime.console import Screen, duration
from vision_transfer.tasks.benchmark.cases import Case
from vision_transfer.tasks.benchmark.measure import measure_case
from vision_transfer.tasks.benchmark.roofline import CASE, case_key, with_doubts

SECONDS_PER_MINUTE = 60
Record = dict[str, Any]


def measure(
    config: Config,
    cases: Sequence[Case],
    cache: Path,
    folder: Path,
    screen: Screen,
    done: Sequence[Record] = (),
    keep: Callable[[list[Record], int], None] = lambda records, left: None,
) -> list[Record]:
    """Measures the cases that `done` lacks until `config.benchmark.minutes` have passed; returns all records.

    `keep` is given the records, and the number of cases left, after each case. A case that runs out of memory ends its
    sweep: larger batches of the same work are not tried. One that fails otherwise is recorded with the `reason`, and is
    tried again by the next command.
    """
    began, longest = time.monotonic(), 0.0
    records = [record for record in done if record["status"] != "failed"]
    known = {case_key(record) for record in records}
    pending = [(number, case) for number, case in enumerate(cases) if case_key(case.identity) not in known]
    with screen.bar("Measuring", len(cases), "cases") as advance:
        advance(len(cases) - len(pending))
        for place, (number, case) in enumerate(pending):
            spent, minutes = time.monotonic() - began, config.benchmark.minutes
            if minutes and spent + longest > minutes * SECONDS_PER_MINUTE:
                left = len(pending) - place
                screen.say(
                    f"{left} of {len(cases)} cases are left after {duration(spent)}; the same command continues."
                )
                break
            trace = folder / "trace" / f"{number:02d}" if config.benchmark.trace else None
            record = _record(config, case, cache, trace, records, screen)
            records = with_doubts([*records, record])
            keep(records, len(pending) - place - 1)
            longest = max(longest, time.monotonic() - began - spent)
            advance(1, case.name)
    return records


def _record(
    config: Config, case: Case, cache: Path, trace: Path | None, records: Sequence[Record], screen: Screen
) -> Record:
    """The record of one case, whether it could be measured or not."""
    facts: Record = {**case.facts, "seconds": None}
    too_large = [
        record["batch"]
        for record in records
        if record["status"] == "out of memory" and _sweep_key(record) == _sweep_key(facts)
    ]
    if too_large and case.batch >= min(too_large):
        return {
            **facts,
            "status": "not tried",
            "reason": f"a batch of {min(too_large)} needs more memory than there is",
        }
    measured = [record for record in records if record["status"] == "measured"]
    peak = next((record["peak"] for record in measured if record["precision"] == facts["precision"]), None)
    feed = next((record["feed"] for record in measured if _fed_key(record) == _fed_key(facts)), None)
    try:
        record = measure_case(config, case, cache, trace, peak, feed)
    except UserError as error:
        screen.say(f"{case.name}: failed; the record has the reason, and the next command tries again.")
        return {**facts, "status": "failed", "reason": str(error)}
    return record


def _sweep_key(record: Record) -> tuple[Any, ...]:
    return tuple(record[name] for name in CASE if name != "batch")


def _fed_key(record: Record) -> tuple[Any, ...]:
    """What the input path depends on."""
    return tuple(
        record[name] for name in ("backbone", "cached", "batch", "precision" if record["cached"] else "source")
    )

"""The mode `cache`: prints the table of entries, or what `--prune` deleted."""

import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from rich import box
from rich.filesize import decimal
from rich.table import Column, Table

from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.jax_setup import COMPILED_FOLDER
from vision_transfer.tasks.cache.entries import KINDS, Entry, cache_entries
from vision_transfer.tasks.cache.prune import prune, selected


def say_cache(cache: Path, pruned_by: str | None, screen: Screen) -> None:
    """Lists the entries of the cache, or deletes those selected by `pruned_by`, the value of `--prune`.

    Raises:
        UserError: `pruned_by` cannot be parsed.
    """
    entries = cache_entries(cache)
    if pruned_by is None:
        screen.say(f"Cache in {cache}")
        if entries:
            screen.say(_table(entries))
            screen.say("To delete entries: --prune=ENTRY, features, stale, older_than:30d or all; combine with commas.")
        else:
            screen.say("It is empty.")
        return
    _say_pruned(*prune(cache, selected(pruned_by, entries, time.time())), screen)


def _table(entries: Sequence[Entry]) -> Table:
    """A row per entry, except that compiled programs share one; totals by kind, and of all."""
    size, used = Column("Size", justify="right", no_wrap=True), Column("Last used", no_wrap=True)
    table = Table(Column("Entry", overflow="fold"), "Content", size, used, box=box.SIMPLE_HEAD, pad_edge=False)
    for kind in KINDS:
        of_kind = [entry for entry in entries if entry.kind == kind]
        if kind != COMPILED_FOLDER:
            for entry in of_kind:
                stale = " (stale)" if entry.stale else ""
                table.add_row(entry.path, entry.about + stale, decimal(entry.bytes), _day(entry.used))
        if of_kind:
            text = f"{len(of_kind):,} programs" if kind == COMPILED_FOLDER else f"{len(of_kind):,} in all"
            table.add_row(kind, text, _total(of_kind), _day(max(entry.used for entry in of_kind)), style="bold")
            table.add_section()
    table.add_row("all", "", _total(entries), "", style="bold")
    return table


def _say_pruned(removed: Sequence[Entry], busy: Sequence[Entry], screen: Screen) -> None:
    for entry in removed:
        if entry.kind != COMPILED_FOLDER:
            screen.say(f"removed {entry.path}: {entry.about}, {decimal(entry.bytes)}")
    programs = [entry for entry in removed if entry.kind == COMPILED_FOLDER]
    if programs:
        screen.say(f"removed {len(programs):,} compiled programs, {_total(programs)}")
    for entry in busy:
        screen.say(f"kept {entry.path}: in use by another process", style="yellow")
    if not removed and not busy:
        screen.say("No entry in the cache matches.")
    screen.say(f"{_total(removed)} freed.")


def _total(entries: Sequence[Entry]) -> str:
    return decimal(sum(entry.bytes for entry in entries))


def _day(seconds: float) -> str:
    """The date without the hour, since most disks record the time of reading once a day (Linux's `relatime`)."""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d")

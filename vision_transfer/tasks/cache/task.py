"""`--mode=cache`: the table of what the cache holds, and the lines that say what `--prune` removed."""

import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from rich import box
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.jax_setup import COMPILED_FOLDER
from vision_transfer.tasks.cache.entries import KINDS, Entry, cache_entries
from vision_transfer.tasks.cache.prune import Pruned, parse_selection, prune


def say_cache(cache: Path, pruned_by: str | None, screen: Screen) -> None:
    """Lists the cache, or removes from it what `--prune` names and says what that freed.

    Args:
        cache: root of all caches.
        pruned_by: value of `--prune`, or None to list.
        screen: to say it on.

    Raises:
        UserError: a value of `--prune` that cannot be read.
    """
    entries = cache_entries(cache)
    if pruned_by is None:
        screen.say(escape(f"Cache in {cache}"))
        if entries:
            screen.say(_table(entries))
            screen.say("To remove: --prune=PIECE, features, stale, older_than:30d or all; with commas.")
        else:
            screen.say("It is empty.")
        return
    _say_pruned(prune(cache, entries, parse_selection(pruned_by, entries), time.time()), screen)


def _table(entries: Sequence[Entry]) -> Table:
    """A row for each piece, but one for all compiled programs; then totals by kind, and of all."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("Piece", overflow="fold")
    table.add_column("What")
    table.add_column("Size", justify="right", no_wrap=True)
    table.add_column("Last used", no_wrap=True)
    for kind in KINDS:
        of_kind = [entry for entry in entries if entry.kind == kind]
        if kind != COMPILED_FOLDER:
            for entry in of_kind:
                stale = " (stale)" if entry.stale else ""
                table.add_row(entry.path, escape(entry.about) + stale, decimal(entry.bytes), _day(entry.used))
        if of_kind:
            text = f"{len(of_kind):,} programs" if kind == COMPILED_FOLDER else f"{len(of_kind):,} in all"
            table.add_row(kind, text, _total(of_kind), _day(max(entry.used for entry in of_kind)), style="bold")
            table.add_section()
    table.add_row("all", "", _total(entries), "", style="bold")
    return table


def _say_pruned(pruned: Pruned, screen: Screen) -> None:
    """What is gone, kind by kind and, but for programs, piece by piece; what was kept; what that freed."""
    for entry in pruned.removed:
        if entry.kind != COMPILED_FOLDER:
            screen.say(escape(f"removed {entry.path}: {entry.about}, {decimal(entry.bytes)}"))
    programs = [entry for entry in pruned.removed if entry.kind == COMPILED_FOLDER]
    if programs:
        screen.say(f"removed {len(programs):,} compiled programs, {_total(programs)}")
    for entry in pruned.busy:
        screen.say(escape(f"kept {entry.path}: another process is at work on it"), style="yellow")
    if not pruned.removed and not pruned.busy:
        screen.say("Nothing in the cache is of that kind.")
    screen.say(f"{_total(pruned.removed)} freed.")


def _total(entries: Sequence[Entry]) -> str:
    return decimal(sum(entry.bytes for entry in entries))


def _day(seconds: float) -> str:
    """No hour, since most disks note the time of reading once a day (Linux's `relatime`)."""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d")

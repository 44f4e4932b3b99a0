"""Parses `--prune` and deletes what it names; skips entries in use and files that this program did not write."""

import math
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path

from filelock import FileLock

from vision_transfer.data.find import FETCHED_FOLDER
from vision_transfer.errors import UserError
from vision_transfer.feature_cache.store import Store
from vision_transfer.models.pretrained.load import FOLDER as WEIGHTS_FOLDER
from vision_transfer.runtime.files import held
from vision_transfer.tasks.cache.entries import KINDS, Entry

_AGE = re.compile(r"older_than:(\d+)([hd])")
_SECONDS = {"h": 3600, "d": 86400}
GRAMMAR = f"""\
  all              everything
  KIND             {", ".join(KINDS)}
  KIND/NAME        one entry, as listed by --mode=cache
  older_than:AGE   entries not used for this long: 12h, 30d
  stale            features computed by other code or another JAX, which no run will use again
Separate several with commas: entries with one of the kinds and names are deleted if they meet all other conditions."""


def selected(text: str, entries: Sequence[Entry], now: float) -> list[Entry]:
    """The entries that `text`, the value of `--prune`, selects by `GRAMMAR`; `now` is in seconds since 1970.

    Raises:
        UserError: a word outside the grammar, or a name that no entry has.
    """
    words = [word.strip() for word in text.split(",")]
    paths = {entry.path for entry in entries}
    for word in words:
        if word not in KINDS and word not in paths and word not in ("all", "stale") and not _AGE.fullmatch(word):
            raise UserError(
                f"--prune={text}: {word!r} is neither a condition nor the name of an entry; allowed are\n{GRAMMAR}"
            )
    named = {word for word in words if word in KINDS or word in paths}
    if "all" in words or not named:
        named = set(KINDS)
    ages = [int(age[1]) * _SECONDS[age[2]] for age in map(_AGE.fullmatch, words) if age]
    # A wrong clock gives times of use in the future.
    least_age = max(ages, default=-math.inf)
    return [
        entry
        for entry in entries
        if (entry.kind in named or entry.path in named)
        and now - entry.used >= least_age
        and (entry.stale or "stale" not in words)
    ]


def prune(cache: Path, entries: Sequence[Entry]) -> tuple[list[Entry], list[Entry]]:
    """Deletes entries; returns those deleted, and those kept because another process uses them."""
    removed, busy = [], []
    for entry in entries:
        with _unused(cache, entry) as unused:
            if unused:
                _remove(entry, cache / entry.kind)
            (removed if unused else busy).append(entry)
    return removed, busy


def _unused(cache: Path, entry: Entry) -> AbstractContextManager[bool]:
    """Whether no other process holds the entry, if its kind has locks; inside the context none can take it.

    Lock files stay, since a process may be waiting for one. A process that has read decoded images, weights or a
    compiled program no longer needs the files: an open memory map keeps its content.
    """
    match entry.kind:
        case "features":
            return Store(cache / entry.path).unused()
        case "decoded":
            return held(FileLock(cache / f"{entry.path}.lock"))
        case "datasets" | "downloads":
            return held(FileLock(cache / f"{FETCHED_FOLDER}.lock"))
        case "weights":
            return held(FileLock(cache / f"{WEIGHTS_FOLDER}.lock"))
        case _:
            return nullcontext(True)


def _remove(entry: Entry, top: Path) -> None:
    """Deletes the files of an entry, and then the folders in `top` that this leaves empty."""
    for file in entry.files:
        file.unlink(missing_ok=True)
    folders = {folder for file in entry.files for folder in file.parents if top in folder.parents}
    for folder in sorted(folders, key=lambda folder: len(folder.parts), reverse=True):
        with suppress(OSError):  # it holds a file of somebody else
            folder.rmdir()

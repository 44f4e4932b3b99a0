"""What `--prune=…` names, and its removal: never what another process is at work on, never a file of somebody else."""

import math
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from vision_transfer.data.public import FETCHED_FOLDER
from vision_transfer.errors import UserError
from vision_transfer.features.store import Store
from vision_transfer.models.pretrained.cache import FOLDER as WEIGHTS_FOLDER
from vision_transfer.runtime.files import held
from vision_transfer.tasks.cache.entries import KINDS, Entry

_AGE = re.compile(r"older_than:(\d+)([hd])")
_SECONDS = {"h": 3600, "d": 86400}
GRAMMAR = f"""\
  all              everything
  KIND             {", ".join(KINDS)}
  KIND/NAME        one piece, as --mode=cache lists it
  older_than:AGE   what was not used for so long: 12h, 30d
  stale            features that other code or another JAX computed, which no run will use again
Several, with commas: of the kinds and pieces named, those for which all of the rest holds."""


@dataclass(frozen=True)
class Selection:
    """What is to be removed.

    Attributes:
        kinds: all of their pieces.
        paths: of single pieces; without kinds and paths, everything.
        least_age: seconds since the last use.
        stale: only what no run will use again.
    """

    kinds: frozenset[str] = frozenset()
    paths: frozenset[str] = frozenset()
    least_age: float = -math.inf  # a clock that was wrong gives times in the future
    stale: bool = False

    def chooses(self, entry: Entry, now: float) -> bool:
        """Whether a piece is to be removed; `now` in seconds since 1970."""
        named = not (self.kinds or self.paths) or entry.kind in self.kinds or entry.path in self.paths
        return named and now - entry.used >= self.least_age and (entry.stale or not self.stale)


@dataclass(frozen=True)
class Pruned:
    """What a removal did.

    Attributes:
        removed: pieces that are gone.
        busy: pieces that another process adds to or reads, which are kept.
    """

    removed: tuple[Entry, ...]
    busy: tuple[Entry, ...]


def parse_selection(text: str, entries: Sequence[Entry]) -> Selection:
    """Reads the value of `--prune`.

    Args:
        text: see `GRAMMAR`.
        entries: what there is to name.

    Raises:
        UserError: a word that is none of the grammar, or a piece that is not there.
    """
    words = [word.strip() for word in text.split(",")]
    kinds, paths, ages = set(), set(), [-math.inf]
    for word in words:
        age = _AGE.fullmatch(word)
        if age:
            ages.append(float(age[1]) * _SECONDS[age[2]])
        elif word in KINDS:
            kinds.add(word)
        elif word == "all":
            kinds |= set(KINDS)
        elif word in {entry.path for entry in entries}:
            paths.add(word)
        elif word != "stale":
            raise UserError(
                f"--prune={text}: cannot read {word!r}, or there is nothing of that name; allowed are\n{GRAMMAR}"
            )
    return Selection(frozenset(kinds), frozenset(paths), max(ages), "stale" in words)


def prune(cache: Path, entries: Sequence[Entry], selection: Selection, now: float) -> Pruned:
    """Removes the chosen pieces.

    Args:
        cache: root of all caches.
        entries: that there are.
        selection: which of them.
        now: seconds since 1970.
    """
    removed, busy = [], []
    for entry in entries:
        if selection.chooses(entry, now):
            with _unused(cache, entry) as unused:
                if unused:
                    _remove(entry, cache / entry.kind)
                (removed if unused else busy).append(entry)
    return Pruned(tuple(removed), tuple(busy))


def _unused(cache: Path, entry: Entry) -> AbstractContextManager[bool]:
    """Whether no other process holds the piece, as far as its kind is held; none can take it while inside.

    Lock files stay: who waits for one must not wait for a file that is gone. Who has read decoded images, weights or a
    compiled program needs the files no more: an open memory map keeps what it shows.
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
    """Removes the files of a piece, and then the folders below `top` that this leaves empty."""
    for file in entry.files:
        file.unlink(missing_ok=True)
    folders = {folder for file in entry.files for folder in file.parents if top in folder.parents}
    for folder in sorted(folders, key=lambda folder: len(folder.parts), reverse=True):
        with suppress(OSError):  # somebody else's file is in it
            folder.rmdir()

"""The mode `cache`: lists what the cache holds, and deletes from it what `--prune=…` names.

Its entries are weights, data sets and what is known of them, images, features and compiled programs. Only files that
this program writes are listed, and hence deleted: each kind recognises its own by their names. Entries in use are kept.
"""

import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock
from rich import box
from rich.filesize import decimal
from rich.table import Column, Table

from vision_transfer.config.own_parts import DIGEST_LENGTH
from vision_transfer.config.own_parts import FOLDER as PARTS_FOLDER
from vision_transfer.data.dataset import DIGEST_BYTES
from vision_transfer.data.download import DOWNLOADS_FOLDER, PUBLIC_FILES
from vision_transfer.data.find import FETCHED_FOLDER
from vision_transfer.data.formats.tfds import INDEX_FOLDER
from vision_transfer.data.images.cache import FOLDER as DECODED_FOLDER
from vision_transfer.data.images.cache import PARTS as DECODED_PARTS
from vision_transfer.data.images.near_duplicates import PAIRS_FOLDER, ROW_BYTES, THUMBNAILS_FOLDER
from vision_transfer.data.load import CONTRAST_FOLDER, HELD_OUT_FOLDER
from vision_transfer.errors import UserError
from vision_transfer.feature_cache.prefix import computed_by
from vision_transfer.feature_cache.store import FOLDER as FEATURES_FOLDER
from vision_transfer.feature_cache.store import Store
from vision_transfer.models.backbones.registry import RELEASES
from vision_transfer.models.pretrained.load import FOLDER as WEIGHTS_FOLDER
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.files import held, read_json
from vision_transfer.runtime.jax_setup import COMPILED_FOLDER
from vision_transfer.runtime.stamps import FOLDER as STAMPS_FOLDER

# Names that `provenance.json_digest` and the decoded cache give to folders, and JAX to files.
_FEATURES_KEY = re.compile(r"[0-9a-f]{16}")
_DECODED_KEY = re.compile(r"[0-9a-f]{32}")
_DIGEST_FILE = re.compile(rf"[0-9a-f]{{{2 * DIGEST_BYTES}}}")
# Of a feature store, or of a split of decoded images or of files.
_STAMPS_FILE = re.compile(r"[0-9a-f]{16}|[0-9a-f]{32}-(train|validation|test)")
_PARTS_FILE = re.compile(rf".+-[0-9a-f]{{{DIGEST_LENGTH}}}\.py")
_DECODED_FILES = ("manifest.json", "images.npy", "labels.npy", "digests.npy")
_COMPILED_FILE = re.compile(r"(?P<program>.+)-[0-9a-f]{64}-(cache|atime)")
_AGE = re.compile(r"older_than:(\d+)([hd])")
_SECONDS = {"h": 3600, "d": 86400}


@dataclass(frozen=True)
class Entry:
    """A part of the cache that can be deleted by itself, last used `used` seconds after 1970.

    It is `stale` if no run will use it again, since other code or another JAX computed it; only known for features.
    """

    kind: str
    name: str
    about: str
    files: tuple[Path, ...]
    bytes: int
    used: float
    stale: bool = False

    @property
    def path(self) -> str:
        """Its name in `--prune`: `features/1c5bf96c570878d4`."""
        return f"{self.kind}/{self.name}"


def cache_entries(cache: Path) -> list[Entry]:
    """All entries, by kind and name."""
    return [entry for kind, find in KINDS.items() for entry in find(cache / kind)]


def _weights(folder: Path) -> Iterator[Entry]:
    for release in RELEASES:
        files = _existing(folder / f"{release.name}.safetensors")
        if files:
            yield _entry(WEIGHTS_FOLDER, release.name, f"published weights of {release.architecture}", files)


def _data_sets(folder: Path) -> Iterator[Entry]:
    for name in sorted(PUBLIC_FILES):
        if _is_own_folder(folder / name):
            files = _files_below(folder / name)
            yield _entry(FETCHED_FOLDER, name, f"a public data set, {len(files):,} files", files)


def _downloads(folder: Path) -> Iterator[Entry]:
    for name, public in sorted(PUBLIC_FILES.items()):
        endings = ("", ".part")
        files = _existing(*(folder / name / f"{file.name}{ending}" for file in public for ending in endings))
        if files:
            yield _entry(DOWNLOADS_FOLDER, name, "an unfinished download", files)


def _decoded(folder: Path) -> Iterator[Entry]:
    for place in _folders(folder, _DECODED_KEY):
        files = [file for file in _files_below(place) if file.name in _DECODED_FILES]
        if files:
            yield _entry(DECODED_FOLDER, place.name, _about_decoded(place), files)


def _about_decoded(place: Path) -> str:
    manifests = [manifest for part in DECODED_PARTS.values() if (manifest := place / part / "manifest.json").exists()]
    try:
        splits = read_json(manifests[0])["content"]["splits"]
        shapes = [split["shape"] for split in splits.values()]
        return f"{sum(shape[0] for shape in shapes):,} images of {'×'.join(map(str, shapes[0][1:]))}"
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
        return "unfinished"


def _thumbnails(folder: Path) -> Iterator[Entry]:
    for file in _existing(*sorted(folder.glob("*"))):
        if _DIGEST_FILE.fullmatch(file.name):
            about = f"{(file.stat().st_size - DIGEST_BYTES) // ROW_BYTES:,} images, for finding near-duplicates"
            yield _entry(THUMBNAILS_FOLDER, file.name, about, [file])


def _small_files(kind: str, name: re.Pattern[str], about: str) -> Callable[[Path], Iterator[Entry]]:
    """Lists the files of a kind whose entries are a file each."""

    def find(folder: Path) -> Iterator[Entry]:
        for file in _existing(*sorted(folder.glob("*"))):
            if name.fullmatch(file.name):
                yield _entry(kind, file.name, about, [file])

    return find


def _features(folder: Path) -> Iterator[Entry]:
    now: dict[bool, Mapping[str, object]] = {}
    for place in _folders(folder, _FEATURES_KEY):
        store = Store(place)
        files = [*store.files, *_existing(store.used_file)]
        if not files:
            continue
        about = store.description()
        key = about.get("key")
        key = key if isinstance(key, Mapping) else {}
        augmented = key.get("variant") is not None
        if augmented not in now:
            now[augmented] = computed_by(augmented=augmented)
        stale = any(key.get(name) != value for name, value in now[augmented].items())
        used = (store.used_file if store.used_file in files else place).stat().st_mtime
        text = _about_features(about, key, len(store.keys()))
        yield Entry(FEATURES_FOLDER, place.name, text, tuple(files), _size(files), used, stale)


def _about_features(about: Mapping[str, Any], key: Mapping[str, Any], rows: int) -> str:
    """Layer, network, image size, dtype and number of rows."""
    try:
        size = "×".join(map(str, key["input_shape"]))
        variant = "" if key["variant"] is None else f", variant {key['variant'][1]}"
        return f"{about['layer']} of {about['backbone']}, {size}, {key['stored']}{variant}: {rows:,} rows"
    except (KeyError, TypeError, IndexError):
        return f"from another version of this program: {rows:,} rows"


def _compiled(folder: Path) -> Iterator[Entry]:
    for file in _existing(*sorted(folder.glob("*-cache"))):
        named = _COMPILED_FILE.fullmatch(file.name)
        if named:
            name = file.name.removesuffix("-cache")
            yield _entry(COMPILED_FOLDER, name, named["program"], [file, *_existing(folder / f"{name}-atime")])


# Lists the entries of each kind in its folder.
KINDS: dict[str, Callable[[Path], Iterator[Entry]]] = {
    WEIGHTS_FOLDER: _weights,
    FETCHED_FOLDER: _data_sets,
    DOWNLOADS_FOLDER: _downloads,
    DECODED_FOLDER: _decoded,
    THUMBNAILS_FOLDER: _thumbnails,
    PAIRS_FOLDER: _small_files(PAIRS_FOLDER, _DIGEST_FILE, "pairs of near-duplicates"),
    INDEX_FOLDER: _small_files(INDEX_FOLDER, _DIGEST_FILE, "labels and digest of a split of a TensorFlow Dataset"),
    STAMPS_FOLDER: _small_files(STAMPS_FOLDER, _STAMPS_FILE, "digests of files that need not be read again"),
    CONTRAST_FOLDER: _small_files(CONTRAST_FOLDER, _DIGEST_FILE, "which images of a split have no contrast"),
    HELD_OUT_FOLDER: _small_files(HELD_OUT_FOLDER, _DIGEST_FILE, "which of many images are held out of training"),
    PARTS_FOLDER: _small_files(PARTS_FOLDER, _PARTS_FILE, "copy of a file of your own parts, for workers"),
    FEATURES_FOLDER: _features,
    COMPILED_FOLDER: _compiled,
}
GRAMMAR = f"""\
  all              everything
  KIND             {", ".join(KINDS)}
  KIND/NAME        one entry, as listed by --mode=cache
  older_than:AGE   entries not used for this long: 12h, 30d
  stale            features computed by other code or another JAX, which no run will use again
Separate several with commas: entries with one of the kinds and names are deleted if they meet all other conditions."""


def _entry(kind: str, name: str, about: str, files: list[Path]) -> Entry:
    """An entry whose last use is when any of its files was read or written, as far as the disk records it."""
    times = [max(file.stat().st_atime, file.stat().st_mtime) for file in files]
    return Entry(kind, name, about, tuple(files), _size(files), max(times, default=0.0))


def _existing(*files: Path) -> list[Path]:
    return [file for file in files if file.is_file()]


def _folders(folder: Path, key: re.Pattern[str]) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(place for place in folder.iterdir() if key.fullmatch(place.name) and _is_own_folder(place))


def _is_own_folder(place: Path) -> bool:
    """Whether this is a folder and no link to one, whose files are somebody's own."""
    return place.is_dir() and not place.is_symlink()


def _files_below(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file() and not file.is_symlink())


def _size(files: list[Path]) -> int:
    """Bytes of the files that are still there: another process may finish or remove one meanwhile."""
    found = 0
    for file in files:
        with suppress(FileNotFoundError):
            found += file.stat().st_size
    return found


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
    compiled program no longer needs the files: one that it keeps open keeps its content.
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

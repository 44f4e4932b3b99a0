"""Image files as examples: found below a folder or listed, read, and identified by a digest of their bytes.

One definition of an image file holds for every mode: a visible file that starts like an image and decodes. Hidden files
and folders, and what systems and programs leave in folders (`@eaDir`, `Thumbs.db`), are passed over as if they were not
there.
"""

import hashlib
import os
import stat
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from pathlib import Path

import numpy as np

from vision_transfer.data.dataset import DIGEST_BYTES, Skipped, digest
from vision_transfer.data.images.decode import (
    UndecodableError,
    decode_image,
    decoder_version,
    read_file,
    read_image_file,
    why_unreadable,
)
from vision_transfer.data.images.parallel import map_in_order
from vision_transfer.data.images.recognise import HEAD_BYTES, SUFFIXES, is_image
from vision_transfer.data.source import Examples, Source
from vision_transfer.errors import UserError, visible
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.file_stamps import Files
from vision_transfer.runtime.stamps import FOLDER as STAMPS_FOLDER
from vision_transfer.runtime.stamps import known_digests

# The size that VGG's weights were trained with (arXiv:1409.1556, section 3.1).
DEFAULT_SIZE = 224
# In lower case: thumbnails of Synology, archives made on a Mac, notebooks, Python, Windows, recycle bins.
SYSTEM_NAMES = frozenset(
    (
        *("@eadir", "#recycle", "@recycle", "__macosx", "__pycache__", "$recycle.bin", "system volume information"),
        *("lost+found", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"),
    )
)
_PSEUDO_FILE_SYSTEMS = tuple(map(Path, ("/proc", "/sys", "/dev")))
# A disk in memory, which clusters have for data.
_MEMORY_DISK = Path("/dev/shm")


@dataclass(frozen=True)
class Listed:
    """Files of a split: their paths, names for display, classes; groups and where they are listed, if anything says so.

    Attributes:
        folders: gone through once; a folder that is listed meanwhile adds to the other lists.
        where: for messages, such as `line 3: `.
    """

    folders: Iterable[Files]
    files: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    where: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)


def files_source(
    name: str,
    classes: tuple[str, ...],
    listed: Mapping[str, Listed],
    *,
    note: str,
    expected: str,
    skipped: Sequence[Skipped] = (),
    warnings: Sequence[str] = (),
    screen: Screen,
    stamps: Path | None = None,
) -> Source:
    """A source of the listed files of each split: read and digested, not decoded; without those that are no images.

    `stamps` is what `stamps_file` gives.

    Raises:
        UserError: the system cannot read files now.
    """
    splits: dict[str, Examples] = {}
    unreadable: list[Skipped] = []
    content = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for split, items in listed.items():
        own_stamps = None if stamps is None else stamps.with_name(f"{stamps.name}-{split}")
        splits[split], left_out = _read(items, f"Reading {split}", own_stamps, screen)
        # In the order of the names, which `fingerprint` adds: together they tell which name has which bytes.
        content.update(splits[split].contents.data)
        unreadable += left_out
    return Source(
        name=name,
        classes=classes,
        splits=splits,
        content=content.hexdigest(),
        default_size=DEFAULT_SIZE,
        skipped=(*skipped, *unreadable),
        note=note,
        expected=expected,
        warnings=tuple(warnings),
        has_near_duplicates=True,
    )


def with_value_range(source: Source, value_range: tuple[float, ...]) -> Source:
    """The source with the grey values of files of more than 8 bits read in this range; `()` changes nothing.

    Raises:
        UserError: the source is not made of files.
    """
    if not value_range:
        return source
    if any(examples.read is None for examples in source.splits.values()):
        raise UserError("config.dataset.value_range: is for image files; leave it out for this data set")

    def ranged(examples: Examples) -> Examples:
        read = examples.read
        assert read is not None, "checked above"
        return replace(examples, pixels=lambda index, channels: decode_image(read(index), channels, value_range))

    splits = {split: ranged(examples) for split, examples in source.splits.items()}
    content = digest(f"{source.content} {value_range}".encode()).hex()
    return replace(source, splits=splits, content=content)


def is_passed_over(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or left by a system or program; such are never read."""
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


def may_be_image(path: Path) -> bool:
    """Whether a file starts like an image or is named like one; the start of one named otherwise is read."""
    if path.suffix.lower() in SUFFIXES:
        return True
    try:
        # a FIFO would wait for its writer
        if not stat.S_ISREG(path.stat().st_mode):
            return False
        with path.open("rb") as file:
            return is_image(file.read(HEAD_BYTES))
    except OSError as error:
        why_unreadable(path, error)
        return False


def refuse_pseudo_folder(path: Path, where: str) -> None:
    """Raises UserError for a folder of the running system, such as /proc, whose files have no end."""
    resolved = path.resolve()
    if not resolved.is_relative_to(_MEMORY_DISK) and any(
        resolved.is_relative_to(pseudo) for pseudo in _PSEUDO_FILE_SYSTEMS
    ):
        raise UserError(f"{where}: {display(str(path))} is a folder of the running system and holds no images.")


def walk(top: Path) -> Iterator[tuple[str, list[str], list[tuple[str, str]]]]:
    """Each folder from `top` on, as a string that ends with a separator, with its files that are not passed over.

    The names of files are sorted. The last list has paths that cannot be images, each with the reason. Links to folders
    are followed, but no folder is entered twice, so that circular links end.

    Raises:
        UserError: the system cannot read folders now.
    """
    visited: set[tuple[int, int]] = set()
    pending = [str(top)]
    while pending:
        folder = pending.pop()
        try:
            status = os.stat(folder)  # noqa: PTH116
            if (status.st_dev, status.st_ino) in visited:
                yield "", [], [(folder, "a link to a folder that was already read")]
                continue
            visited.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as found:
                entries = sorted(found, key=attrgetter("name"))
        except OSError as error:
            yield "", [], [(folder, why_unreadable(Path(folder), error))]
            continue
        start = "" if folder == os.curdir else os.path.join(folder, "")  # noqa: PTH118
        files: list[str] = []
        inside: list[str] = []
        others: list[tuple[str, str]] = []
        names = [entry.name for entry in entries]
        # One look at all names takes half the time of a look at each.
        if "\0." in "\0".join(["", *names]) or not SYSTEM_NAMES.isdisjoint(map(str.lower, names)):
            entries = [entry for entry in entries if not is_passed_over(entry.name)]
        for entry in entries:
            name = entry.name
            try:
                if entry.is_file():
                    files.append(name)
                elif entry.is_dir():
                    inside.append(start + name)
                else:
                    entry.stat()  # raises an error if there is nothing
                    others.append((start + name, "not a regular file"))
            except OSError as error:
                others.append((start + name, why_unreadable(Path(start + name), error)))
        yield start, files, others
        pending.extend(reversed(inside))


def is_folder(path: Path) -> bool:
    """Whether `path` is a folder that can be accessed (`Path.is_dir` raises an error if access is denied)."""
    try:
        return path.is_dir()
    except OSError:
        return False


def display(name: str) -> str:
    """A file name that can be printed and stored in one line: escapes for control characters and for what is not UTF-8.

    Raw control characters could move the cursor, recolour the screen or split a row of a table.
    """
    if name.isascii() and name.isprintable():
        return name
    return visible(os.fsencode(name).decode("utf-8", "backslashreplace"))


def shown_below(top: Path, root: Path, folder: str, names: Sequence[str]) -> list[str]:
    """Files of a folder that `walk(top)` gives, for display: relative to `root`, with `/` between parts."""
    start = display(top.relative_to(root).as_posix()) + display(folder[len(str(top)) :].replace(os.sep, "/"))
    # One look at all of them takes a fifth of the time of a look at each.
    plain = display("".join(names)) == "".join(names)
    return [start + name for name in names] if plain else [start + display(name) for name in names]


def stamps_file(cache_dir: Path | None, root: Path) -> Path | None:
    """The file with the digests of a folder's or table's files, so that they are read once; None without a cache."""
    if cache_dir is None:
        return None
    return cache_dir / STAMPS_FOLDER / digest(f"{decoder_version()} {display(str(root.resolve()))}".encode()).hex()


def _read(listed: Listed, title: str, stamps: Path | None, screen: Screen) -> tuple[Examples, list[Skipped]]:
    files, folders, ends = listed.files, list[Files](), list[int]()

    def go_through() -> Iterator[Files]:
        for start, names in listed.folders:
            folders.append((start, names))
            ends.append(len(names) + (ends[-1] if ends else 0))
            yield start, names

    def path(place: int) -> Path:
        number = bisect_right(ends, place)
        start, names = folders[number]
        return Path(start + names[place - ends[number]])  # counted from its end

    def digest_or_reason(place: int) -> bytes | Skipped:
        try:
            return digest(read_image_file(path(place)))
        except UndecodableError as reason:
            where = listed.where[place] if listed.where else ""
            return Skipped(files[place], f"{where}{reason}")

    def read_all(places: Sequence[int]) -> Iterator[bytes | Skipped]:
        return map_in_order(digest_or_reason, places, screen=screen, title=title)

    digests, skipped = known_digests(stamps, go_through(), read_all, DIGEST_BYTES)

    def read(index: int) -> bytes:
        try:
            content = read_file(path(index))
        except UndecodableError:
            content = b""
        if digest(content) != digests[index].tobytes():
            raise UserError(
                f"--config.dataset.root: {files[index]} was changed while it was being read. Run the command again."
            )
        return content

    examples = Examples(
        files=tuple(files),
        labels=np.array(listed.labels, np.int32),
        pixels=lambda index, channels: decode_image(read(index), channels),
        contents=digests,
        read=read,
        groups=tuple(listed.groups),
    )
    return examples.without(list(skipped)), list(skipped.values())

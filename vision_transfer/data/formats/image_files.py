"""Image files as examples: found below a folder or listed, read, and identified by a digest of their bytes.

One definition of an image file holds for every mode: a visible file that starts like an image and decodes. Hidden files
and folders, and what systems and programs leave in folders (`@eaDir`, `Thumbs.db`), are passed over as if they were not
there.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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


@dataclass(frozen=True, slots=True)
class Named:
    """A file, its name for display, its class, where it is listed, for messages (such as `line 3: `), and its group."""

    path: str
    file: str
    label: int
    where: str = ""
    group: str = ""


def files_source(
    name: str,
    classes: tuple[str, ...],
    named: Mapping[str, Sequence[Named]],
    *,
    note: str,
    expected: str,
    skipped: Sequence[Skipped] = (),
    warnings: Sequence[str] = (),
    screen: Screen,
    stamps: Path | None = None,
) -> Source:
    """A source of the named files of each split: read and digested, not decoded; those that are no images are left out.

    `stamps` is what `stamps_file` gives.

    Raises:
        UserError: the system cannot read files now.
    """
    splits: dict[str, Examples] = {}
    unreadable: list[Skipped] = []
    content = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for split, items in named.items():
        own_stamps = None if stamps is None else stamps.with_name(f"{stamps.name}-{split}")
        splits[split], left_out = _read(items, f"Reading {split}", own_stamps, screen)
        # In the order of the names, which `fingerprint` adds: together they tell which name has which bytes.
        content.update(b"".join(splits[split].contents))
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
    """The source with the grey values of files of more than 8 bits read in this range; `()` changes nothing."""
    if not value_range:
        return source

    def ranged(examples: Examples) -> Examples:
        read = examples.read
        if read is None:
            return examples
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
        with path.open("rb") as file:
            return is_image(file.read(HEAD_BYTES))
    except OSError as error:
        why_unreadable(path, error)
        return False


def refuse_pseudo_folder(path: Path, where: str) -> None:
    """Raises UserError for a folder of the running system, such as /proc, whose files have no end."""
    resolved = path.resolve()
    if any(resolved.is_relative_to(pseudo) for pseudo in _PSEUDO_FILE_SYSTEMS):
        raise UserError(f"{where}: {display(str(path))} is a folder of the running system and holds no images.")


def walk(top: Path) -> Iterator[tuple[str, str | None]]:
    """All files below `top` that are not passed over, in a fixed order, each with None or why it cannot be an image.

    Links to folders are followed, but no folder is entered twice, so that circular links end. The paths are strings,
    since a `Path` of each takes longer than all else that is done with a file that need not be read.

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
                yield folder, "a link to a folder that was already read"
                continue
            visited.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as found:
                entries = sorted((entry for entry in found if not is_passed_over(entry.name)), key=lambda one: one.name)
        except OSError as error:
            yield folder, why_unreadable(Path(folder), error)
            continue
        inside = []
        start = "" if folder == os.curdir else os.path.join(folder, "")  # noqa: PTH118
        for entry in entries:
            path = start + entry.name
            try:
                regular, deeper = entry.is_file(), entry.is_dir()
                if not (regular or deeper):
                    entry.stat()  # raises an error if there is nothing
            except OSError as error:
                yield path, why_unreadable(Path(path), error)
                continue
            if deeper:
                inside.append(path)
            else:
                yield path, None if regular else "not a regular file"
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


def names_below(folder: Path, root: Path) -> Callable[[str], str]:
    """For paths that `walk(folder)` gives: the name of each for display, relative to `root`, with `/` between parts."""
    shown, start = display(folder.relative_to(root).as_posix()), len(str(folder))
    return lambda path: shown + display(path[start:].replace(os.sep, "/"))


def stamps_file(cache_dir: Path | None, root: Path) -> Path | None:
    """Where digests of the files of a folder or table are kept, so that they are read once; None without a cache."""
    if cache_dir is None:
        return None
    return cache_dir / STAMPS_FOLDER / digest(f"{decoder_version()} {display(str(root.resolve()))}".encode()).hex()


def _read(named: Sequence[Named], title: str, stamps: Path | None, screen: Screen) -> tuple[Examples, list[Skipped]]:
    def digest_or_reason(place: int) -> bytes | Skipped:
        item = named[place]
        try:
            return digest(read_image_file(Path(item.path)))
        except UndecodableError as reason:
            return Skipped(item.file, f"{item.where}{reason}")

    def read(places: Sequence[int]) -> Iterator[bytes | Skipped]:
        return map_in_order(digest_or_reason, places, screen=screen, title=title)

    found: list[tuple[Named, bytes]] = []
    skipped: list[Skipped] = []
    results = known_digests(stamps, [item.path for item in named], read, DIGEST_BYTES)
    for item, result in zip(named, results, strict=True):
        if isinstance(result, Skipped):
            skipped.append(result)
        else:
            found.append((item, result))
    return _examples(found), skipped


def _examples(found: Sequence[tuple[Named, bytes]]) -> Examples:
    def read(index: int) -> bytes:
        item, expected = found[index]
        try:
            content = read_file(Path(item.path))
        except UndecodableError:
            content = b""
        if digest(content) != expected:
            raise UserError(
                f"--config.dataset.root: {item.file} was changed while it was being read. Run the command again."
            )
        return content

    return Examples(
        files=tuple(item.file for item, _ in found),
        labels=np.array([item.label for item, _ in found], np.int32),
        pixels=lambda index, channels: decode_image(read(index), channels),
        contents=tuple(content for _, content in found),
        read=read,
        groups=tuple(item.group for item, _ in found) if any(item.group for item, _ in found) else (),
    )

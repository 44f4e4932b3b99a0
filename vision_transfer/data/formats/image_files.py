"""Image files as examples: found below a folder or listed, read, and identified by a digest of their bytes."""

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vision_transfer.data.dataset import DIGEST_BYTES, Skipped, digest
from vision_transfer.data.images.decode import UndecodableError, decode_image, read_file
from vision_transfer.data.images.parallel import map_in_order
from vision_transfer.data.source import Examples, Source
from vision_transfer.errors import UserError
from vision_transfer.runtime.console import Screen

# The size that VGG's weights were trained with (arXiv:1409.1556, section 3.1).
DEFAULT_SIZE = 224


@dataclass(frozen=True)
class Named:
    """A file, its name for display, its class, and where it is listed, for messages (such as `line 3: `)."""

    path: Path
    file: str
    label: int
    where: str = ""


def files_source(
    name: str,
    classes: tuple[str, ...],
    named: Mapping[str, Sequence[Named]],
    *,
    note: str,
    expected: str,
    skipped: Sequence[Skipped] = (),
    screen: Screen,
) -> Source:
    """A source of the named files of each split: read and digested, not decoded; unreadable ones are left out."""
    splits: dict[str, Examples] = {}
    unreadable: list[Skipped] = []
    content = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for split, items in named.items():
        splits[split], left_out = _read(items, f"Reading {split}", screen)
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
        has_near_duplicates=True,
    )


def walk(top: Path) -> Iterator[tuple[Path, str | None]]:
    """All visible files below `top` in a fixed order, each with None or the reason why it cannot be an image.

    Links to folders are followed, but no folder is entered twice, so that circular links end.
    """
    visited: set[tuple[int, int]] = set()
    pending = [top]
    while pending:
        folder = pending.pop()
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in visited:
                yield folder, "a link to a folder that was already read"
                continue
            visited.add((status.st_dev, status.st_ino))
            names = sorted(entry.name for entry in os.scandir(folder) if not entry.name.startswith("."))
        except OSError as error:
            yield folder, f"cannot be read: {error.strerror}"
            continue
        inside = []
        for path in (folder / name for name in names):
            try:
                mode = path.stat().st_mode
            except OSError as error:
                yield path, f"cannot be read: {error.strerror}"
                continue
            if stat.S_ISDIR(mode):
                inside.append(path)
            else:
                yield path, None if stat.S_ISREG(mode) else "not a regular file"
        pending.extend(reversed(inside))


def is_folder(path: Path) -> bool:
    """Whether `path` is a folder that can be accessed (`Path.is_dir` raises an error if access is denied)."""
    try:
        return path.is_dir()
    except OSError:
        return False


def display(name: str) -> str:
    """A file name that can be printed and stored: bytes that are not UTF-8 become escapes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def relative(path: Path, root: Path) -> str:
    """The name of a file below `root` for display, with `/` between its parts."""
    return display(path.relative_to(root).as_posix())


def _read(named: Sequence[Named], title: str, screen: Screen) -> tuple[Examples, list[Skipped]]:
    def digest_or_reason(item: Named) -> bytes | Skipped:
        try:
            return digest(read_file(item.path))
        except UndecodableError as reason:
            return Skipped(item.file, f"{item.where}{reason}")

    found: list[tuple[Named, bytes]] = []
    skipped: list[Skipped] = []
    for item, result in zip(named, map_in_order(digest_or_reason, named, screen=screen, title=title), strict=True):
        if isinstance(result, Skipped):
            skipped.append(result)
        else:
            found.append((item, result))
    return _examples(found), skipped


def _examples(found: Sequence[tuple[Named, bytes]]) -> Examples:
    def read(index: int) -> bytes:
        item, expected = found[index]
        try:
            content = read_file(item.path)
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
    )

"""Image files on a disk as examples: found below a folder or named, read, and known by the digest of their bytes."""

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vision_transfer.data.dataset import Skipped
from vision_transfer.data.images.decode import UndecodableError, decode_image, read_file
from vision_transfer.data.images.parallel import map_in_order
from vision_transfer.data.source import Examples
from vision_transfer.errors import UserError
from vision_transfer.runtime.console import Screen


@dataclass(frozen=True)
class Named:
    """One file of one class: where it is, its name for display, and its class."""

    path: Path
    file: str
    label: int


def read_examples(named: Sequence[Named], title: str, screen: Screen) -> tuple[Examples, list[Skipped]]:
    """Reads and digests all files; decodes nothing. Those that cannot be read are left out."""

    def look(item: Named) -> bytes | Skipped:
        try:
            return digest(read_file(item.path))
        except UndecodableError as reason:
            return Skipped(item.file, str(reason))

    found: list[tuple[Named, bytes]] = []
    skipped: list[Skipped] = []
    for item, result in zip(named, map_in_order(look, named, screen=screen, title=title), strict=True):
        if isinstance(result, Skipped):
            skipped.append(result)
        else:
            found.append((item, result))
    return _examples(found), skipped


def walk(top: Path) -> Iterator[tuple[Path, str | None]]:
    """All visible files below `top` in a fixed order, each with None or the reason why it cannot be an image.

    Links to folders are followed, but no folder is entered twice, so that links in a ring come to an end.
    """
    visited: set[tuple[int, int]] = set()
    pending = [top]
    while pending:
        folder = pending.pop()
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in visited:
                yield folder, "a link to a folder that was read already"
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
    """Whether `path` is a folder that can be looked up (`Path.is_dir` raises where access is denied)."""
    try:
        return path.is_dir()
    except OSError:
        return False


def digest(content: bytes) -> bytes:
    """blake2b-128 of a file's bytes."""
    return hashlib.blake2b(content, digest_size=16).digest()


def display(name: str) -> str:
    """A file name that can be printed and stored: bytes that are no UTF-8 become escapes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def relative(path: Path, root: Path) -> str:
    """The name of a file below `root` for display, with `/` between its parts."""
    return display(path.relative_to(root).as_posix())


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

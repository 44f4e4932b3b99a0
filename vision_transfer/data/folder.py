"""Images in class folders: `ROOT/train/cat/cat.0.jpg`, and likewise `validation` (or `valid`, `val`) and `test`."""

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vision_transfer.data.dataset import Skipped
from vision_transfer.data.decode import UndecodableError, decode_image, read_file
from vision_transfer.data.parallel import map_in_order
from vision_transfer.data.source import Examples, Source
from vision_transfer.errors import UserError
from vision_transfer.screen import Screen

SPLIT_FOLDERS = {"train": ("train",), "validation": ("validation", "valid", "val"), "test": ("test",)}
# The classic experiments' (Chollet, "Deep Learning with Python", 2nd edition, section 8.2).
DEFAULT_SIZE = 180
LAYOUT = "ROOT/train/CLASS/*.jpg, ROOT/validation/CLASS/*.jpg (or valid, val) and ROOT/test/CLASS/*.jpg"


@dataclass(frozen=True)
class _Found:
    """One file of one class: where it is, its name for display, its class, and the digest of its bytes."""

    path: Path
    file: str
    label: int
    digest: bytes


def folder_source(root: Path, screen: Screen) -> Source:
    """Finds and hashes all files under `root`'s class folders; decodes nothing.

    Raises:
        UserError: no such folder, no split or class folders, a class missing from a split, or two splits sharing a
            file.
    """
    split_folders = _split_folders(root)
    classes = _classes(split_folders)
    splits, skipped, digests = {}, [], {}
    content = hashlib.blake2b(digest_size=16)
    for split, folder in split_folders.items():
        found, left_out = _find_files(root, folder, classes, screen)
        # In the order of the names, which `fingerprint` adds: so both together say which name has which bytes.
        content.update(b"".join(item.digest for item in found))
        skipped.extend(left_out)
        splits[split] = _examples(found)
        digests[split] = {item.digest: item.file for item in reversed(found)}
    _check_no_shared_file(digests)
    return Source(
        name=root.resolve().name,
        classes=tuple(_display(name) for name in classes),
        splits=splits,
        content=content.hexdigest(),
        default_size=DEFAULT_SIZE,
        skipped=tuple(skipped),
        note=f"images of the folder {_display(str(root))}.",
        expected=LAYOUT,
    )


def has_splits(root: Path) -> bool:
    """Whether `root` itself has a folder `train`."""
    return is_folder(root / "train")


def is_folder(path: Path) -> bool:
    """Whether `path` is a folder that can be looked up (`Path.is_dir` raises where access is denied)."""
    try:
        return path.is_dir()
    except OSError:
        return False


def _split_folders(root: Path) -> dict[str, Path]:
    """The folder of each split that exists."""
    shown = _display(str(root))
    if not is_folder(root):
        raise UserError(f"dataset.root: there is no folder {shown}. Give an existing one that holds {LAYOUT}.")
    try:
        found = {
            split: [root / name for name in names if (root / name).is_dir()] for split, names in SPLIT_FOLDERS.items()
        }
        present = _display(", ".join(sorted(entry.name for entry in root.iterdir())[:8]) or "nothing")
    except OSError as error:
        raise UserError(f"dataset.root: {shown} cannot be read: {error.strerror}.") from None
    for split, folders in found.items():
        if len(folders) > 1:
            names = ", ".join(folder.name for folder in folders)
            raise UserError(f"dataset.root: {shown} has several {split} folders ({names}). Keep one of them.")
    missing = [split for split in ("train", "test") if not found[split]]
    if missing:
        raise UserError(
            f"dataset.root: {shown} has no folder {' and no folder '.join(missing)} (it holds {present}). "
            f"Expected {LAYOUT}."
        )
    return {split: folders[0] for split, folders in found.items() if folders}


def _classes(split_folders: Mapping[str, Path]) -> tuple[str, ...]:
    """The class names, sorted, which must be the same in every split."""
    by_split = {split: _class_folders(folder) for split, folder in split_folders.items()}
    every = sorted(set().union(*by_split.values()))
    if not every:
        raise UserError(
            f"dataset.root: no class folders in {_display(str(split_folders['train']))}. Expected {LAYOUT}."
        )
    for split, names in by_split.items():
        missing = [name for name in every if name not in names]
        if missing:
            raise UserError(
                f"dataset.root: {_display(str(split_folders[split]))} has no folder for the class "
                f"{_display(missing[0])}, which another split has. Every class must be in every split."
            )
    if len(every) < 2:
        raise UserError(
            f"dataset.root: {_display(str(split_folders['train']))} has the class {_display(every[0])} only. "
            "At least two classes are needed."
        )
    return tuple(every)


def _class_folders(folder: Path) -> set[str]:
    try:
        return {entry.name for entry in folder.iterdir() if not entry.name.startswith(".") and entry.is_dir()}
    except OSError as error:
        raise UserError(f"dataset.root: {_display(str(folder))} cannot be read: {error.strerror}.") from None


def _find_files(
    root: Path, folder: Path, classes: tuple[str, ...], screen: Screen
) -> tuple[list[_Found], list[Skipped]]:
    """All files of one split in the order of class and name, hashed; and those that cannot be read."""
    paths, skipped = [], []
    for label, name in enumerate(classes):
        for path, problem in _walk(folder / name):
            if problem is None:
                paths.append((path, label))
            else:
                skipped.append(Skipped(_relative(path, root), problem))

    def look(item: tuple[Path, int]) -> _Found | Skipped:
        path, label = item
        file = _relative(path, root)
        try:
            return _Found(path, file, label, _digest(read_file(path)))
        except UndecodableError as reason:
            return Skipped(file, str(reason))

    found = []
    for item in map_in_order(look, paths, screen=screen, title=f"Reading {folder.name}"):
        (found if isinstance(item, _Found) else skipped).append(item)
    return found, skipped


def _walk(top: Path) -> Iterator[tuple[Path, str | None]]:
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


def _examples(found: list[_Found]) -> Examples:
    def pixels(index: int, channels: int) -> np.ndarray:
        item = found[index]
        try:
            content = read_file(item.path)
        except UndecodableError:
            content = b""
        if _digest(content) != item.digest:
            raise UserError(f"dataset.root: {item.file} was changed while it was being read. Run the command again.")
        return decode_image(content, channels)

    return Examples(
        files=tuple(item.file for item in found),
        labels=np.array([item.label for item in found], np.int32),
        pixels=pixels,
    )


def _check_no_shared_file(digests: Mapping[str, Mapping[bytes, str]]) -> None:
    """Two splits must not share a file, by content: the score would be a memory test.

    (The classic `cats_vs_dogs_small` has no such pair.)
    """
    names = list(digests)
    for place, first in enumerate(names):
        for second in names[place + 1 :]:
            shared = [digest for digest in digests[first] if digest in digests[second]]
            if shared:
                raise UserError(
                    f"dataset.root: {first} and {second} share {len(shared)} file(s) of equal content, such as "
                    f"{digests[first][shared[0]]} and {digests[second][shared[0]]}. Remove them from one of the two."
                )


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


def _relative(path: Path, root: Path) -> str:
    return _display(path.relative_to(root).as_posix())


def _display(name: str) -> str:
    """A file name that can be printed and stored: bytes that are no UTF-8 become escapes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")

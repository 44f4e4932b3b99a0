"""Files and folders that are either complete or absent, even after a power cut; non-blocking file locks."""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

# Part of every temporary name, so that the leftovers of killed processes can be found and removed.
TEMPORARY_MARK = ".writing-"


@contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
    """A temporary path for the caller to write; on success synced and renamed to `path`, on failure removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_sibling(path)
    try:
        yield temporary
        name_synced(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def name_synced(temporary: Path, path: Path) -> None:
    """Renames a finished file or folder once its content is safely on disk."""
    _sync(temporary)
    temporary.replace(path)
    _sync(path.parent)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder for the caller to fill; on success synced and renamed to `path`, on failure removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_sibling(path)
    temporary.mkdir()
    try:
        yield temporary
        for inside in sorted(temporary.rglob("*"), reverse=True):
            _sync(inside)
        name_synced(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def temporary_sibling(path: Path) -> Path:
    """An unused name in the same folder."""
    return path.with_name(f"{path.name}{TEMPORARY_MARK}{uuid.uuid4().hex[:12]}")


def remove_leftovers(folder: Path) -> None:
    """Removes what killed processes were writing directly in `folder`; the caller must hold the folder's lock."""
    for leftover in folder.glob(f"*{TEMPORARY_MARK}*"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Writes indented JSON with sorted keys."""
    with replaced_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def file_sha256(path: Path) -> str:
    """Hexadecimal digest of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def held(lock: FileLock) -> Iterator[bool]:
    """Tries to take the lock without waiting; yields whether this process holds it until the context ends."""
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

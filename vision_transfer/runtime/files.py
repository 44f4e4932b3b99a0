"""Files that are either wholly there or not at all, also after a power cut."""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Part of every temporary name, so that what a killed process left behind can be found and removed.
TEMPORARY_MARK = ".writing-"
HASH_CHUNK_BYTES = 1 << 20


@contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; written by the caller, then synced and renamed to `path`; removed on failure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_sibling(path)
    try:
        yield temporary
        name_synced(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def name_synced(temporary: Path, path: Path) -> None:
    """Gives a finished file its name, once its content is safe on the disk."""
    _sync(temporary)
    temporary.replace(path)
    _sync(path.parent)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path`; filled by the caller, then synced and renamed to `path`; removed on failure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_sibling(path)
    temporary.mkdir()
    try:
        yield temporary
        for inside in sorted(temporary.rglob("*"), reverse=True):
            _sync(inside)
        _sync(temporary)
        temporary.rename(path)
        _sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def temporary_sibling(path: Path) -> Path:
    """A name in the same folder that nobody else uses."""
    return path.with_name(f"{path.name}{TEMPORARY_MARK}{uuid.uuid4().hex[:12]}")


def remove_leftovers(folder: Path) -> None:
    """Removes what killed processes were writing directly in `folder`. Only call it while holding the folder's lock."""
    for leftover in folder.glob(f"*{TEMPORARY_MARK}*"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Writes JSON with sorted keys, readable by people."""
    with replaced_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def file_sha256(path: Path) -> str:
    """Digest of a file's bytes in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(HASH_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

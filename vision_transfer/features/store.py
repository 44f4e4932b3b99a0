"""A store of features on disk: shards that are only ever added, each written whole and verified when it is opened.

    features/KEY/description.json         what determines the rows
    features/KEY/NAME.npy and NAME.json   a shard: rows; their keys, their dtype and the sha256 of the array's file
    features/KEY.lock                     held by whoever adds to the store, or removes it
    features/KEY.used                     share-locked by whoever reads the store; its time is that of the last use

NumPy's files know no bfloat16, so such rows are saved as their bits, in uint16.
"""

import fcntl
import hashlib
import json
import os
import re
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from filelock import FileLock, Timeout
from jaxtyping import Float, UInt8

from vision_transfer.features.mapped import MappedRows, map_rows
from vision_transfer.features.rows import FeatureRows
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.files import TEMPORARY_MARK, file_sha256, held, remove_leftovers, replaced_file, write_json
from vision_transfer.runtime.provenance import json_digest

FOLDER = "features"
# In what a dtype is saved.
SAVED_AS = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(np.uint16)}
_DESCRIPTION = "description.json"
_SHARD_NAME = re.compile(r"[0-9a-f]{16}")
_SECONDS_BEFORE_SAYING_THAT_IT_WAITS = 1.0


class Hold:
    """Says to other processes that this one reads a store, for as long as anything refers to this object."""

    def __init__(self, file: Path):
        """Locks `file` in share, and sets its time to now."""
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        self.release = weakref.finalize(self, os.close, descriptor)
        with suppress(OSError):  # a file system without locks: there nothing is ever found to be unused
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        os.utime(descriptor)


@dataclass(frozen=True)
class Store:
    """A folder of shards; its name is the digest of all that determines its rows."""

    path: Path

    @property
    def lock_file(self) -> Path:
        """Held by whoever adds to the store, or removes it."""
        return self.path.with_suffix(".lock")

    @property
    def used_file(self) -> Path:
        """Share-locked by whoever reads the store."""
        return self.path.with_suffix(".used")

    @property
    def index_files(self) -> list[Path]:
        """Indices of all shards, in the order of their names."""
        return sorted(file for file in self.path.glob("*.json") if _SHARD_NAME.fullmatch(file.stem))

    @property
    def files(self) -> list[Path]:
        """All that this module writes into the folder, and nothing else that may lie there."""
        arrays = [file for file in self.path.glob("*.npy") if _SHARD_NAME.fullmatch(file.stem)]
        leftovers = self.path.glob(f"*{TEMPORARY_MARK}*")
        found = {*self.index_files, *arrays, *leftovers, self.path / _DESCRIPTION}
        return sorted(file for file in found if file.is_file() and not file.is_symlink())

    def description(self) -> dict[str, Any]:
        """What was written about the rows; empty where that cannot be read."""
        found = _read_json(self.path / _DESCRIPTION)
        return found if isinstance(found, dict) else {}

    def describe(self, description: dict[str, Any]) -> None:
        """Writes what the rows are."""
        write_json(self.path / _DESCRIPTION, description)

    def keys(self) -> set[str]:
        """Keys of the rows as the indices list them; no array is read."""
        found: set[str] = set()
        for file in self.index_files:
            with suppress(TypeError, KeyError):
                found |= set(_read_json(file)["content"]["rows"])
        return found

    @contextmanager
    def growing(self, what: str, screen: Screen) -> Iterator[None]:
        """Makes the folder and holds its lock, waiting for a process that has it; `what` names the rows for that."""
        self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.lock_file)
        try:
            lock.acquire(timeout=_SECONDS_BEFORE_SAYING_THAT_IT_WAITS)
        except Timeout:
            screen.say(f"Another process is computing {what}; waiting for it.")
            lock.acquire()
        try:
            self.path.mkdir(exist_ok=True)  # it may have been pruned meanwhile
            remove_leftovers(self.path)
            yield
        finally:
            lock.release()

    @contextmanager
    def unused(self) -> Iterator[bool]:
        """Whether no process adds to the store or reads it; where none does, none can begin to while inside."""
        with held(FileLock(self.lock_file)) as free:
            if not free:
                yield False
                return
            with _locked_alone(self.used_file) as alone:
                yield alone


@dataclass(frozen=True)
class OpenStore:
    """The intact shards of a store.

    Attributes:
        shards: `(rows, ...)` memory maps.
        place_of: for each key its shard and the row in it.
        hold: against pruning.
    """

    shards: tuple[MappedRows, ...]
    place_of: dict[str, tuple[int, int]]
    hold: Hold

    def rows(self, keys: Sequence[str]) -> FeatureRows:
        """The rows with these keys, in this order."""
        places = np.array([self.place_of[key] for key in keys], np.int64).reshape(-1, 2)
        return FeatureRows(self.shards, places, (self.hold,))


def open_store(store: Store, screen: Screen, *, remove_damaged: bool) -> OpenStore:
    """All intact shards of a store; each is verified once in a process, several at a time.

    Threads compute digests and nothing else: numpy parses an array's header with `ast`, which in CPython 3.11 fails at
    random (SystemError) when two threads do so at once.

    Args:
        store: its folder must exist.
        screen: for a bar while much is verified.
        remove_damaged: whether damaged shards are removed, so that their rows are computed anew. Only do so while the
            store's lock is held.
    """
    hold, files = Hold(store.used_file), store.index_files
    shards: list[MappedRows] = []
    place_of: dict[str, tuple[int, int]] = {}
    with ThreadPoolExecutor() as pool, screen.bar("Verifying cached features", len(files), "shards") as advance:
        for file, index in zip(files, pool.map(_verified_index, files), strict=True):
            advance(1)
            shard = None if index is None else _mapped_shard(file, index)
            if shard is not None:
                keys, rows = shard
                place_of |= {key: (len(shards), row) for row, key in enumerate(keys)}
                shards.append(rows)
            elif remove_damaged:
                file.unlink(missing_ok=True)
                _array_file(file).unlink(missing_ok=True)
    return OpenStore(tuple(shards), place_of, hold)


def write_shard(store: Store, rows: Float[np.ndarray, "rows ..."], keys: Sequence[str]) -> None:
    """The array first and its index last: without an index, a shard does not exist.

    Args:
        store: to add to, under its lock.
        rows: float32 or bfloat16.
        keys: of each row.
    """
    array_file = store.path / f"{hashlib.sha256(''.join(keys).encode()).hexdigest()[:16]}.npy"
    dtype = str(rows.dtype)
    with replaced_file(array_file) as temporary, temporary.open("wb") as stream:
        np.save(stream, rows.view(SAVED_AS[dtype]), allow_pickle=False)
    content = {"rows": list(keys), "dtype": dtype, "sha256": _sha256(array_file)}
    write_json(array_file.with_suffix(".json"), {"digest": json_digest(content), "content": content})


def row_keys(digests: UInt8[np.ndarray, "examples 16"]) -> list[str]:
    """The keys of images by their content."""
    return [digest.tobytes().hex() for digest in digests]


def _verified_index(index_file: Path) -> dict[str, Any] | None:
    """The index of a shard, or None if it or the array does not have its digest."""
    try:
        written = json.loads(index_file.read_text(encoding="utf-8"))
        index = written["content"]
        intact = json_digest(index) == written["digest"] and _sha256(_array_file(index_file)) == index["sha256"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return index if intact else None


def _mapped_shard(index_file: Path, index: dict[str, Any]) -> tuple[list[str], MappedRows] | None:
    """Keys and rows of a shard whose digests are right, or None if index and array do not fit each other."""
    try:
        rows = map_rows(_array_file(index_file))
        if rows.array.dtype != SAVED_AS[index["dtype"]] or len(index["rows"]) != len(rows):
            return None
        return index["rows"], rows.view(jnp.dtype(index["dtype"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _array_file(index_file: Path) -> Path:
    return index_file.with_suffix(".npy")


def _sha256(file: Path) -> str:
    state = file.stat()
    return _sha256_of(file, (state.st_size, state.st_mtime_ns, state.st_ino))


@cache
def _sha256_of(file: Path, state: tuple[int, int, int]) -> str:
    """Digest of a file, read once in this process for as long as size, time and inode stay; 1 GB takes about 1 s."""
    del state
    return file_sha256(file)


@contextmanager
def _locked_alone(file: Path) -> Iterator[bool]:
    """Whether nobody shares the lock of a file; nobody does of one that is not there."""
    try:
        descriptor = os.open(file, os.O_RDWR)
    except FileNotFoundError:
        yield True
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        alone = True
    except OSError:
        alone = False
    try:
        yield alone
    finally:
        os.close(descriptor)


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None

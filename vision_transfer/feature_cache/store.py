"""A store of features on disk: shards are only added, each written atomically, and verified when they are opened.

A shard whose file has the stamp with which it was verified (`runtime/stamps.py`) is not read again for that.

    features/KEY/description.json         what determines the rows
    features/KEY/NAME.npy and NAME.json   a shard: rows; their keys, their dtype and the sha256 of the array's file
    features/KEY.lock                     locked by the process that adds to the store or removes it
    features/KEY.used                     share-locked by the processes that read the store; its time is the last use

NumPy's files do not support bfloat16, so the bits of such rows are saved as uint16.
"""

import fcntl
import hashlib
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
from filelock import FileLock
from jaxtyping import Float, UInt8

from vision_transfer.data.dataset import DIGEST_BYTES, find_digests
from vision_transfer.data.rows import StoredRows, open_rows
from vision_transfer.feature_cache.rows import FeatureRows
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.files import (
    DAMAGE,
    TEMPORARY_MARK,
    file_sha256,
    held,
    raise_if_of_the_system,
    read_json,
    remove,
    replaced_file,
    write_json,
)
from vision_transfer.runtime.provenance import json_digest
from vision_transfer.runtime.stamps import FOLDER as STAMPS_FOLDER
from vision_transfer.runtime.stamps import known_digests

FOLDER = "features"
SHA256_BYTES = 32
# The dtype in which a dtype is saved.
SAVED_AS = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(np.uint16)}
_DESCRIPTION = "description.json"
_SHARD_NAME = re.compile(r"[0-9a-f]{16}")


class Hold:
    """Shows other processes that this one reads a store, for as long as this object is referenced."""

    def __init__(self, file: Path):
        """Takes a shared lock of `file`, and sets its time to now."""
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        self.release = weakref.finalize(self, os.close, descriptor)
        with suppress(OSError):  # on a file system without locks no store ever counts as unused
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        os.utime(descriptor)


@dataclass(frozen=True)
class Store:
    """A folder of shards; its name is the digest of everything that determines its rows."""

    path: Path

    @property
    def lock_file(self) -> Path:
        """Locked by the process that adds to the store or removes it."""
        return self.path.with_suffix(".lock")

    @property
    def used_file(self) -> Path:
        """Share-locked by the processes that read the store."""
        return self.path.with_suffix(".used")

    @property
    def stamps_file(self) -> Path:
        """The file with the digests of the shards."""
        return self.path.parents[1] / STAMPS_FOLDER / self.path.name

    @property
    def index_files(self) -> list[Path]:
        """Indices of all shards, by name."""
        return sorted(file for file in self.path.glob("*.json") if _SHARD_NAME.fullmatch(file.stem))

    @property
    def files(self) -> list[Path]:
        """The files in the folder that this module wrote."""
        arrays = [file for file in self.path.glob("*.npy") if _SHARD_NAME.fullmatch(file.stem)]
        leftovers = self.path.glob(f"*{TEMPORARY_MARK}*")
        found = {*self.index_files, *arrays, *leftovers, self.path / _DESCRIPTION}
        return sorted(file for file in found if file.is_file() and not file.is_symlink())

    def description(self) -> dict[str, Any]:
        """The description of the rows; empty if it cannot be read."""
        found = _read_json(self.path / _DESCRIPTION)
        return found if isinstance(found, dict) else {}

    def describe(self, description: dict[str, Any]) -> None:
        """Writes the description of the rows."""
        write_json(self.path / _DESCRIPTION, description)

    def keys(self) -> UInt8[np.ndarray, "rows 16"]:
        """Keys of the rows, as listed in the indices; no array is read."""
        found = [np.zeros((0, DIGEST_BYTES), np.uint8)]
        for file in self.index_files:
            with suppress(TypeError, KeyError, ValueError):
                found.append(_keys(_read_json(file)["content"]))
        return np.concatenate(found)

    @contextmanager
    def unused(self) -> Iterator[bool]:
        """Whether no process adds to the store or reads it; if so, none can start to inside the context."""
        with held(FileLock(self.lock_file)) as free:
            if not free:
                yield False
                return
            with _locked_alone(self.used_file) as alone:
                yield alone


@dataclass(frozen=True)
class OpenStore:
    """The intact shards of a store, the keys of their rows, shard after shard, and the hold against pruning."""

    shards: tuple[StoredRows, ...]
    keys: UInt8[np.ndarray, "rows 16"]
    hold: Hold

    def rows(self, keys: UInt8[np.ndarray, "wanted 16"]) -> FeatureRows:
        """The rows with these keys, in this order.

        Raises:
            KeyError: a row is not there.
        """
        found = find_digests(keys, self.keys)
        if (found < 0).any():
            raise KeyError(keys[np.argmin(found)].tobytes().hex())
        ends = np.cumsum([len(shard) for shard in self.shards])
        shards = np.searchsorted(ends, found, side="right")
        starts = np.concatenate([[0], ends])[shards]
        return FeatureRows(self.shards, np.stack([shards, found - starts], axis=1), (self.hold,))


def open_store(store: Store, screen: Screen, *, remove_damaged: bool) -> OpenStore:
    """Opens all intact shards of a store, whose folder must exist; each is verified unless its stamp is known.

    With `remove_damaged`, which needs the store's lock, damaged shards are removed, so that their rows are computed
    again. Threads only compute digests: numpy parses an array's header with `ast`, which in CPython 3.11 fails at
    random (SystemError) when two threads do so at once.
    """
    hold, files = Hold(store.used_file), store.index_files
    shards: list[StoredRows] = []
    keys = [np.zeros((0, DIGEST_BYTES), np.uint8)]
    arrays = [_array_file(file) for file in files]
    with ThreadPoolExecutor() as pool, screen.bar("Verifying cached features", len(files), "shards") as advance:

        def read(unread: Sequence[int]) -> Iterator[bytes | None]:
            advance(len(files) - len(unread))
            for digest in pool.map(_sha256_if_there, (arrays[place] for place in unread)):
                advance(1)
                yield digest

        digests, absent = known_digests(store.stamps_file, [("", list(map(str, arrays)))], read, SHA256_BYTES)
    for place, file in enumerate(files):
        index = None if place in absent else _verified_index(file, digests[place].tobytes())
        shard = None if index is None else _stored_shard(file, index)
        if shard is not None:
            keys.append(shard[0])
            shards.append(shard[1])
        elif remove_damaged:
            remove(file)
            remove(_array_file(file))
    return OpenStore(tuple(shards), np.concatenate(keys), hold)


def write_shard(store: Store, rows: Float[np.ndarray, "rows ..."], keys: UInt8[np.ndarray, "rows 16"]) -> None:
    """Writes a shard of float32 or bfloat16 rows, of images with these digests, under the store's lock.

    The index is written last: a shard without an index does not exist.
    """
    array_file = store.path / f"{hashlib.sha256(keys.tobytes()).hexdigest()[:16]}.npy"
    dtype = str(rows.dtype)
    with replaced_file(array_file) as temporary, temporary.open("wb") as stream:
        np.save(stream, rows.view(SAVED_AS[dtype]), allow_pickle=False)
    content = {"rows": keys.tobytes().hex(), "dtype": dtype, "sha256": _sha256(array_file)}
    write_json(array_file.with_suffix(".json"), {"digest": json_digest(content), "content": content})


def _verified_index(index_file: Path, sha256: bytes) -> dict[str, Any] | None:
    """The index of a shard, or None if it or the array, whose digest is given, is not as it was written.

    Raises:
        OSError: the system cannot read the files now, so that nothing is known about them.
    """
    try:
        written = read_json(index_file)
        index = written["content"]
        intact = json_digest(index) == written["digest"] and sha256 == bytes.fromhex(index["sha256"])
    except (*DAMAGE, ValueError, KeyError, TypeError, RecursionError):
        return None
    return index if intact else None


def _stored_shard(index_file: Path, index: dict[str, Any]) -> tuple[UInt8[np.ndarray, "rows 16"], StoredRows] | None:
    """Keys and rows of a verified shard, or None if index and array do not fit each other."""
    try:
        keys, rows = _keys(index), open_rows(_array_file(index_file))
        if rows.dtype != SAVED_AS[index["dtype"]] or len(keys) != len(rows):
            return None
        return keys, rows.view(jnp.dtype(index["dtype"]))
    except (*DAMAGE, ValueError, KeyError, TypeError):
        return None


def _keys(index: dict[str, Any]) -> UInt8[np.ndarray, "rows 16"]:
    """The keys in a shard's index, there as one string, which is read in a tenth of the time of one for each."""
    return np.frombuffer(bytes.fromhex(index["rows"]), np.uint8).reshape(-1, DIGEST_BYTES)


def _array_file(index_file: Path) -> Path:
    return index_file.with_suffix(".npy")


def _sha256_if_there(file: Path) -> bytes | None:
    try:
        return bytes.fromhex(_sha256(file))
    except DAMAGE:
        return None


def _sha256(file: Path) -> str:
    state = file.stat()
    return _sha256_of(file, (state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino))


@cache
def _sha256_of(file: Path, state: tuple[int, int, int, int]) -> str:
    """Digest of a file, read once per process while its stamp stays the same; 1 GB takes about 1 s."""
    del state
    return file_sha256(file)


@contextmanager
def _locked_alone(file: Path) -> Iterator[bool]:
    """Whether nobody shares the lock of a file; True if there is no such file."""
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
        return read_json(file)
    except (OSError, ValueError) as error:
        raise_if_of_the_system(error)  # else what cannot be read now would count as stale, and be pruned
        return None

"""Rows of features, spread over the files of shards and taken as one array."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from vision_transfer.errors import UserError


@dataclass(frozen=True)
class StoredRows:
    """Rows in a `.npy` file, read when they are taken: `shape[0]` rows from the byte `start` on.

    No descriptor stays open between two readings, so that the number of shards has no limit. Rows are read, not mapped:
    a mapping would count as the process's memory, and a file that someone shortens would end the process.
    """

    file: Path
    start: int
    shape: tuple[int, ...]
    dtype: np.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def read_into(self, taken: np.ndarray, places: np.ndarray, rows: np.ndarray) -> None:
        """Copies the rows with these numbers to these places of an array.

        Raises:
            UserError: the file was removed or shortened since it was verified, or the system cannot read it now.
        """
        row_bytes = prod(self.shape[1:]) * self.dtype.itemsize
        whole = taken.reshape(-1).view(np.uint8).data
        try:
            descriptor = os.open(self.file, os.O_RDONLY)
            try:
                for place, row, count in _runs(places, rows):
                    part = whole[place * row_bytes : (place + count) * row_bytes]
                    _read_fully(descriptor, part, self.start + row * row_bytes)
            finally:
                os.close(descriptor)
        except (OSError, EOFError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(
                f"{self.file}: cached features can no longer be read ({reason}). Run the same command again: it "
                "resumes, and computes what is missing"
            ) from error

    def view(self, dtype: np.dtype) -> "StoredRows":
        """The same bits as another dtype of the same size."""
        return replace(self, dtype=dtype)


def open_rows(file: Path) -> StoredRows:
    """The rows of a `.npy` file; only the header is read.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file has another format, holds objects or columns, or is shorter than its header says.
    """
    with file.open("rb") as stream:
        version = npy.read_magic(stream)
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, columns, dtype = read_header(stream)
        start = stream.tell()
        size = os.fstat(stream.fileno()).st_size
    if dtype.hasobject or columns or not shape:
        held = "Python objects" if dtype.hasobject else "columns" if columns else "a single number"
        raise ValueError(f"{file}: holds {held}, not rows of numbers")
    if size < start + prod(shape) * dtype.itemsize:
        raise ValueError(f"{file}: is shorter than its header says")
    return StoredRows(file, start, shape, dtype)


def _runs(places: np.ndarray, rows: np.ndarray) -> list[tuple[int, int, int]]:
    """Place, row and number of rows of each run of neighbours, which one call can read."""
    starts = np.flatnonzero((np.diff(places, prepend=-2) != 1) | (np.diff(rows, prepend=-2) != 1))
    counts = np.diff(starts, append=len(rows))
    return list(zip(places[starts].tolist(), rows[starts].tolist(), counts.tolist(), strict=True))


def _read_fully(descriptor: int, target: memoryview, offset: int) -> None:
    done = 0
    while done < len(target):
        count = os.preadv(descriptor, [target[done:]], offset + done)
        if not count:
            raise EOFError("it was shortened")
        done += count


@dataclass(frozen=True)
class FeatureRows:
    """Rows spread over shards, taken in any order as one array.

    Attributes:
        shards: `(rows, ...)` each, of equal row shape and dtype (float32 or bfloat16).
        places: `(rows, 2) int64`: shard and row in it of each row.
        holds: protect the stores of these rows from pruning for as long as the rows are used.
    """

    shards: tuple[StoredRows, ...]
    places: np.ndarray
    holds: tuple[object, ...] = field(default=(), repr=False, compare=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of rows, then the shape of one."""
        return (len(self.places), *self.shards[0].shape[1:])

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the stored values."""
        return self.shards[0].dtype

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """The rows with these numbers, in this order, copied into memory."""
        places = self.places[rows]
        taken = np.empty((len(places), *self.shape[1:]), self.dtype)
        for shard in np.unique(places[:, 0]):
            here = np.flatnonzero(places[:, 0] == shard)
            self.shards[shard].read_into(taken, here, places[here, 1])
        return taken


def concatenated(parts: Sequence[FeatureRows]) -> FeatureRows:
    """All rows of all parts, in order; nothing is copied."""
    places, shards, holds = [], [], []
    for part in parts:
        places.append(part.places + np.array([len(shards), 0]))
        shards += part.shards
        holds += part.holds
    return FeatureRows(tuple(shards), np.concatenate(places), tuple(holds))

"""Rows of features, spread over memory-mapped shards and taken as one array."""

import mmap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
from numpy.lib import format as npy


@dataclass(frozen=True)
class MappedRows:
    """Rows in a file, read when they are taken; `array` has all of them, in the mapping.

    Pages that were read through a mapping count as the process's memory until the system reclaims them: a stage that
    trains from 2.5 GB of features would seem to need 2.5 GB. So pages are released after each use. They stay in the
    system's cache, and reading them again costs little.
    """

    array: np.ndarray
    mapping: mmap.mmap = field(repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """The rows with these numbers, copied; the pages are released."""
        taken = self.array[rows]
        self.mapping.madvise(mmap.MADV_DONTNEED)
        return taken

    def view(self, dtype: np.dtype) -> "MappedRows":
        """The same bits as another dtype of the same size."""
        return MappedRows(self.array.view(dtype), self.mapping)


def map_rows(file: Path) -> MappedRows:
    """Maps the array of a `.npy` file; only the header is read.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file has another format, holds objects or columns, or is shorter than its header says.
    """
    array = npy.open_memmap(file, mode="r")
    if not array.flags.c_contiguous:
        raise ValueError(f"{file}: holds columns, not rows")
    return MappedRows(np.asarray(array), cast(mmap.mmap, array.base))


@dataclass(frozen=True)
class FeatureRows:
    """Rows spread over memory-mapped shards, taken in any order as one array.

    Attributes:
        shards: `(rows, ...)` each, of equal row shape and dtype (float32 or bfloat16).
        places: `(rows, 2) int64`: shard and row in it of each row.
        holds: protect the stores of these rows from pruning for as long as the rows are used.
    """

    shards: tuple[MappedRows, ...]
    places: np.ndarray
    holds: tuple[object, ...] = field(default=(), repr=False, compare=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of rows, then the shape of one."""
        return (len(self.places), *self.shards[0].array.shape[1:])

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the stored values."""
        return self.shards[0].array.dtype

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """The rows with these numbers, in this order, copied into memory."""
        places = self.places[rows]
        taken = np.empty((len(places), *self.shape[1:]), self.dtype)
        for shard in np.unique(places[:, 0]):
            here = places[:, 0] == shard
            taken[here] = self.shards[shard][places[here, 1]]
        return taken


def concatenated(parts: Sequence[FeatureRows]) -> FeatureRows:
    """All rows of all parts, in order; nothing is copied."""
    places, shards, holds = [], [], []
    for part in parts:
        places.append(part.places + np.array([len(shards), 0]))
        shards += part.shards
        holds += part.holds
    return FeatureRows(tuple(shards), np.concatenate(places), tuple(holds))

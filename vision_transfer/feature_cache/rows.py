"""Rows of features, spread over the files of shards and taken as one array."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np

from vision_transfer.data.rows import Run, StoredRows, runs_of

# More than the rows of a shard.
_SHARD_STRIDE = 2**40


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
        taken = np.empty((len(rows), *self.shape[1:]), self.dtype)
        found = list(self._by_shard(rows))
        for shard, runs in found:
            shard.ask_for(runs)
        for shard, runs in found:
            shard.read_into(taken, runs)
        return taken

    def will_need(self, rows: np.ndarray) -> None:
        """Asks the system to read the rows with these numbers, which are taken soon."""
        for shard, runs in self._by_shard(rows):
            shard.ask_for(runs)

    def _by_shard(self, rows: np.ndarray) -> Iterator[tuple[StoredRows, list[Run]]]:
        """Each shard that has some of the rows, and the runs of these in it."""
        places = self.places[rows]
        # The last row of a shard and the first of the next are no neighbours.
        runs = runs_of(places[:, 0] * _SHARD_STRIDE + places[:, 1])
        for shard, group in groupby(runs, key=lambda run: run[1] // _SHARD_STRIDE):
            yield self.shards[shard], [(place, number % _SHARD_STRIDE, count) for place, number, count in group]


def concatenated(parts: Sequence[FeatureRows]) -> FeatureRows:
    """All rows of all parts, in order; nothing is copied."""
    places, shards, holds = [], [], []
    for part in parts:
        places.append(part.places + np.array([len(shards), 0]))
        shards += part.shards
        holds += part.holds
    return FeatureRows(tuple(shards), np.concatenate(places), tuple(holds))

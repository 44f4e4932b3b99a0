"""Rows of features: spread over memory-mapped shards, taken as one array."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from vision_transfer.features.mapped import MappedRows


@dataclass(frozen=True)
class FeatureRows:
    """Rows spread over memory-mapped shards, taken in any order as one array.

    Attributes:
        shards: `(rows, ...)` each, of equal row shape and dtype (float32 or bfloat16).
        places: `(rows, 2) int64`: shard and row in it of each row.
        holds: keep the stores that the rows come from against being pruned, for as long as these rows are used.
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
    """All rows of all parts, one part after the other; nothing is copied."""
    places, shards, holds = [], [], []
    for part in parts:
        places.append(part.places + np.array([len(shards), 0]))
        shards += part.shards
        holds += part.holds
    return FeatureRows(tuple(shards), np.concatenate(places), tuple(holds))

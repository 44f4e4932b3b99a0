"""Rows of images or features, wherever they are: in memory, in a mapped file, in shards; and some rows of others."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from jaxtyping import Int


class Rows(Protocol):
    """Rows on disk or in memory: a numpy array, a memory map, cached features."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of rows, then the shape of one."""
        ...

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the values."""
        ...

    def __getitem__(self, rows: Any, /) -> Any:
        """The rows with these numbers (an integer array), in this order, as a numpy array."""
        ...


@dataclass(frozen=True)
class TakenRows:
    """The rows of `rows` with the numbers `(taken,) int`, in that order; nothing is copied before it is asked for."""

    rows: Rows
    numbers: Int[np.ndarray, "taken"]

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of rows, then the shape of one."""
        return (len(self.numbers), *self.rows.shape[1:])

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the values."""
        return self.rows.dtype

    def __getitem__(self, rows: Any) -> np.ndarray:
        """The rows with these numbers among the taken ones: an integer array, or anything else that chooses rows."""
        return self.rows[self.numbers[rows]]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All of them in memory, as numpy's functions ask for them."""
        if copy is False:
            raise ValueError("rows that are taken from others are always copied")
        return self.rows[self.numbers].astype(dtype or self.dtype, copy=False)

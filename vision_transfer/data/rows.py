"""Rows of images or features, wherever they are: in memory, in a file; and some rows of others."""

import os
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import Int
from numpy.lib import format as npy

from vision_transfer.errors import UserError

# The place of the first row among those that are taken, its number, and how many follow one another in both.
Run = tuple[int, int, int]


class Rows(Protocol):
    """Rows on disk or in memory: a numpy array, stored images, cached features."""

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
        del copy  # always
        return self.rows[self.numbers].astype(dtype or self.dtype, copy=False)

    def will_need(self, rows: np.ndarray) -> None:
        """Asks the system to read the rows with these numbers, which are taken soon."""
        will_need(self.rows, self.numbers[rows])


class OpenFile:
    """A descriptor of a file, open for as long as this object is referenced."""

    def __init__(self, file: Path):
        """Opens a file to be read."""
        self.descriptor = os.open(file, os.O_RDONLY)
        self.close = weakref.finalize(self, os.close, self.descriptor)


@dataclass(frozen=True)
class StoredRows:
    """Rows in a file, read when they are taken: `shape[0]` rows from the byte `start` on.

    Rows are read, not mapped: a mapping would count as the process's memory, a page that is missing would stop the
    process while the system reads up to 8 MB around it, and a file that someone shortens would end the process.

    A file that is kept open gives its rows although it is removed. Without `kept_open` no descriptor stays open between
    two readings, so that the number of files has no limit.
    """

    file: Path
    start: int
    shape: tuple[int, ...]
    dtype: np.dtype
    kept_open: OpenFile | None = None

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Copies of the rows with these numbers: an array of integers, a slice, or a single number."""
        numbers = row_numbers(rows, len(self))
        flat = numbers.reshape(-1)
        taken = np.empty((len(flat), *self.shape[1:]), self.dtype)
        runs = runs_of(flat)
        self.ask_for(runs)
        self.read_into(taken, runs)
        return taken.reshape(*numbers.shape, *self.shape[1:])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All of them in memory, as numpy's functions ask for them."""
        del copy  # always
        return self[:].astype(dtype or self.dtype, copy=False)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return prod(self.shape[1:]) * self.dtype.itemsize

    def read_into(self, taken: np.ndarray, runs: Sequence[Run]) -> None:
        """Copies runs of rows to their places in an array.

        Raises:
            UserError: the file was removed or shortened since it was verified, or the system cannot read it now.
        """
        row_bytes, whole = self.row_bytes, taken.reshape(-1).view(np.uint8).data
        try:
            with self._descriptor() as descriptor:
                for place, row, count in runs:
                    part = whole[place * row_bytes : (place + count) * row_bytes]
                    _read_fully(descriptor, part, self.start + row * row_bytes)
        except (OSError, EOFError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(
                f"{self.file}: cached data can no longer be read ({reason}). Run the same command again: it resumes, "
                "and computes what is missing"
            ) from error

    def ask_for(self, runs: Sequence[Run]) -> None:
        """Asks for rows all at once, so that a disk can answer in the order that suits it, and many at a time.

        A row that is not in memory stops the thread that takes it until the disk has answered. Asked ahead, 3,300 to
        3,900 rows of 150 kB a second came instead of 285 to 309, in random order from a file of 6 GB (2 cores, AMD
        EPYC). Does nothing where the system cannot be asked.
        """
        if not runs or not hasattr(os, "posix_fadvise"):
            return
        row_bytes = self.row_bytes
        with suppress(OSError), self._descriptor() as descriptor:  # whoever takes the rows is told
            for _, row, count in runs:
                os.posix_fadvise(descriptor, self.start + row * row_bytes, count * row_bytes, os.POSIX_FADV_WILLNEED)

    def will_need(self, rows: np.ndarray) -> None:
        """Asks the system to read the rows with these numbers, which are taken soon."""
        self.ask_for(runs_of(np.asarray(rows)))

    def view(self, dtype: np.dtype) -> "StoredRows":
        """The same bits as another dtype of the same size."""
        return replace(self, dtype=dtype)

    @contextmanager
    def _descriptor(self) -> Iterator[int]:
        if self.kept_open is not None:
            yield self.kept_open.descriptor
            return
        descriptor = os.open(self.file, os.O_RDONLY)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def will_need(rows: Rows, numbers: np.ndarray) -> None:
    """Asks the system to read rows with these numbers, which are taken soon; nothing for rows in memory."""
    ask = getattr(rows, "will_need", None)
    if ask is not None:
        ask(numbers)


def row_numbers(rows: Any, count: int) -> Int[np.ndarray, "*rows"]:
    """The numbers, from 0, that an array of integers, a slice or a single number chooses of `count` rows.

    Raises:
        IndexError: there is no such row.
    """
    numbers = np.arange(*rows.indices(count)) if isinstance(rows, slice) else np.asarray(rows, np.int64)
    if numbers.size and not (-count <= numbers.min() and numbers.max() < count):
        raise IndexError(f"rows {numbers.min()} to {numbers.max()} of {count}")
    return numbers % max(1, count)


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


def runs_of(rows: Int[np.ndarray, "rows"]) -> list[Run]:
    """The runs of neighbours that rows with these numbers form, in ascending order; each can be read at once."""
    places = np.argsort(rows, kind="stable")
    numbers = rows[places]
    new = (numbers[1:] - numbers[:-1] != 1) | (places[1:] - places[:-1] != 1)
    starts = np.flatnonzero(np.concatenate([np.ones(min(1, len(rows)), bool), new]))
    counts = np.append(starts[1:], len(rows)) - starts
    return list(zip(places[starts].tolist(), numbers[starts].tolist(), counts.tolist(), strict=True))


def _read_fully(descriptor: int, target: memoryview, offset: int) -> None:
    done = 0
    while done < len(target):
        count = os.preadv(descriptor, [target[done:]], offset + done)
        if not count:
            raise EOFError("it was shortened")
        done += count

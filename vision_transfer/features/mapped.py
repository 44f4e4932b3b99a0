"""Rows of a `.npy` file, mapped into memory and given back behind each use.

What is read through a mapping counts as the process's memory until the system wants it back: a stage that trains from
2.5 GB of features would seem to need 2.5 GB. The pages stay in the system's cache, so that reading them again costs
little.
"""

import mmap
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.lib import format as npy


@dataclass(frozen=True)
class MappedRows:
    """Rows in a file, read when they are taken.

    Attributes:
        array: all of them, in the mapping.
        mapping: of the file.
    """

    array: np.ndarray
    mapping: mmap.mmap = field(repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """The rows with these numbers, copied; their pages are given back."""
        taken = self.array[rows]
        self.mapping.madvise(mmap.MADV_DONTNEED)
        return taken

    def view(self, dtype: np.dtype) -> "MappedRows":
        """The same bits as another dtype of the same size."""
        return MappedRows(self.array.view(dtype), self.mapping)


def map_rows(file: Path) -> MappedRows:
    """Maps the array of a `.npy` file as `np.save` writes it; nothing but its header is read.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no such file, or shorter than its header says.
    """
    with file.open("rb") as stream:
        version = npy.read_magic(stream)
        if version != (1, 0):
            raise ValueError(
                f"{file}: is of version {version} of NumPy's format; np.save writes (1, 0) for plain arrays"
            )
        shape, fortran_order, dtype = npy.read_array_header_1_0(stream)
        if fortran_order or dtype.hasobject:
            raise ValueError(f"{file}: holds columns or objects, not rows of numbers")
        offset = stream.tell()
        mapping = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    count = int(np.prod(shape))
    return MappedRows(np.frombuffer(mapping, dtype, count, offset).reshape(shape), mapping)

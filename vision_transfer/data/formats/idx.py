"""IDX files, the format of MNIST and Fashion-MNIST (described at yann.lecun.com/exdb/mnist), gzipped or not."""

import gzip
import math
import os
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import UInt8

from vision_transfer.data.formats.arrays import MAX_ARRAY_BYTES, Arrays, array_source
from vision_transfer.data.source import Source
from vision_transfer.errors import UserError

# The header's third byte for unsigned bytes, the only type of images and labels.
_UNSIGNED_BYTE = 0x08
_GZIP_MAGIC = b"\x1f\x8b"
_PREFIXES = {"train": "train", "test": "t10k"}
# `train-images-idx3-ubyte` as published; some mirrors replace the second hyphen by a dot.
_NAMES = {
    "images": ("{}-images-idx3-ubyte", "{}-images.idx3-ubyte"),
    "labels": ("{}-labels-idx1-ubyte", "{}-labels.idx1-ubyte"),
}
EXPECTED = (
    "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte (.gz or not)"
)


def idx_source(root: Path, name: str, classes: tuple[str, ...] | None = None) -> Source:
    """A source of MNIST's four files in the folder `root`; class names are `0`, `1`, ... unless they are known.

    Raises:
        UserError: a file is missing, damaged or does not fit the others.
    """
    splits: dict[str, Arrays] = {}
    for split, prefix in _PREFIXES.items():
        images = read_idx(_find(root, "images", prefix), dimensions=3)[..., None]
        splits[split] = images, read_idx(_find(root, "labels", prefix), dimensions=1)
    return array_source(name, str(root), splits, classes, EXPECTED)


def read_idx(path: Path, dimensions: int) -> UInt8[np.ndarray, "..."]:
    """Reads the array of unsigned bytes in an IDX file.

    Raises:
        UserError: not such a file, another number of dimensions, truncated, or longer than its header declares.
    """
    try:
        with path.open("rb") as raw:
            zipped = raw.read(2) == _GZIP_MAGIC
            raw.seek(0)
            if not zipped:
                return _read(raw, path, dimensions, available=os.fstat(raw.fileno()).st_size)
            with gzip.GzipFile(fileobj=raw) as unzipped:
                return _read(unzipped, path, dimensions, available=None)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: damaged or truncated gzip data ({error}). Download the file again.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from None


def _read(file: BinaryIO | gzip.GzipFile, path: Path, dimensions: int, available: int | None) -> np.ndarray:
    expected = bytes((0, 0, _UNSIGNED_BYTE, dimensions))
    magic = file.read(4)
    if magic != expected:
        raise UserError(
            f"{path}: begins with {magic.hex() or 'nothing'}, but an IDX file of {dimensions}-dimensional unsigned "
            f"bytes begins with {expected.hex()}. This is another kind of file."
        )
    header = file.read(4 * dimensions)
    if len(header) < 4 * dimensions:
        raise UserError(f"{path}: ends within its header. Download the file again.")
    shape = tuple(int(length) for length in np.frombuffer(header, ">u4"))
    declared = math.prod(shape)
    if declared > MAX_ARRAY_BYTES:
        raise UserError(f"{path}: declares shape {shape}, {declared:,} bytes; the limit is {MAX_ARRAY_BYTES:,}.")
    if available is not None and available < 4 + len(header) + declared:
        raise UserError(
            f"{path}: truncated: shape {shape} needs {declared:,} bytes after the header. Download it again."
        )
    # One byte more than declared, to notice a file that is too long and to have gzip verify its checksum at the end.
    content = file.read(declared + 1)
    if len(content) != declared:
        problem = "truncated" if len(content) < declared else "too long"
        raise UserError(
            f"{path}: {problem}: shape {shape} needs {declared:,} bytes after the header. Download it again."
        )
    return np.frombuffer(content, np.uint8).reshape(shape)


def _find(root: Path, kind: str, prefix: str) -> Path:
    candidates = [root / f"{name.format(prefix)}{suffix}" for name in _NAMES[kind] for suffix in ("", ".gz")]
    for path in candidates:
        if path.is_file():
            return path
    raise UserError(f"{root} has no file {candidates[0].name} (.gz or not). Expected: {EXPECTED}.")

"""NumPy archives with the keys `x_train`, `y_train`, `x_test`, `y_test`, like Keras's; objects are never loaded."""

import math
import zipfile
import zlib
from pathlib import Path
from tokenize import TokenError

import numpy as np

from vision_transfer.data.dataset import SPLIT_NAMES
from vision_transfer.data.formats.arrays import MAX_ARRAY_BYTES, Arrays, array_source
from vision_transfer.data.source import Source
from vision_transfer.errors import UserError

_REQUIRED = ("train", "test")
EXPECTED = "one .npz with x_train, y_train, x_test, y_test (and optionally x_validation, y_validation)"


def npz_source(root: Path, name: str | None = None, classes: tuple[str, ...] | None = None) -> Source:
    """A data set in an .npz: images `(n, height, width[, 1 or 3]) uint8`, labels `(n,)` or `(n, 1)` integers.

    `root` is the file, or a folder with a single one. Defaults: the file's name, the classes `0`, `1`, ...

    Raises:
        UserError: no such file, damaged, contains objects, lacks a key, or its arrays do not fit each other.
    """
    path = _find(root)
    try:
        with zipfile.ZipFile(path) as archive:
            splits = _splits(archive, path)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise UserError(f"{path}: not an .npz, damaged or truncated ({error}). Download the file again.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from None
    return array_source(name or path.stem, str(path), splits, classes, EXPECTED)


def _find(root: Path) -> Path:
    if root.is_file():
        return root
    if not root.is_dir():
        raise UserError(f"--config.dataset.root: there is no file or folder {root}. Expected {EXPECTED}.")
    files = sorted(root.glob("*.npz"))
    if len(files) != 1:
        found = ", ".join(file.name for file in files) or "none"
        raise UserError(
            f"--config.dataset.root: {root} must contain one .npz file; found: {found}. Give the path of the file."
        )
    return files[0]


def _splits(archive: zipfile.ZipFile, path: Path) -> dict[str, Arrays]:
    members = {Path(info.filename).stem: info for info in archive.infolist() if info.filename.endswith(".npy")}
    splits: dict[str, Arrays] = {}
    for split, keys in SPLIT_NAMES.items():
        key = next((key for key in keys if f"x_{key}" in members), None)
        if key is None and split not in _REQUIRED:
            continue
        key = key or keys[0]
        missing = [name for name in (f"x_{key}", f"y_{key}") if name not in members]
        if missing:
            present = ", ".join(sorted(members)) or "nothing"
            raise UserError(f"{path}: has no {' and no '.join(missing)}; it contains {present}. Expected {EXPECTED}.")
        images, labels = (read_member(archive, members[f"{letter}_{key}"], path) for letter in "xy")
        splits[split] = _images(images, f"{path}: x_{key}"), _labels(labels, f"{path}: y_{key}")
    return splits


def _images(images: np.ndarray, where: str) -> np.ndarray:
    if images.dtype != np.uint8:
        raise UserError(f"{where} is {images.dtype}; pixels must be uint8, 0 to 255.")
    shaped = images[..., None] if images.ndim == 3 else images
    if shaped.ndim != 4 or shaped.shape[3] not in (1, 3) or 0 in shaped.shape:
        raise UserError(f"{where} has shape {images.shape}; expected (examples, height, width[, 1 or 3]).")
    return shaped


def _labels(labels: np.ndarray, where: str) -> np.ndarray:
    if not np.issubdtype(labels.dtype, np.integer):
        raise UserError(f"{where} is {labels.dtype}; labels must be integers.")
    flat = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if flat.ndim != 1:
        raise UserError(f"{where} has shape {labels.shape}; expected (examples,) or (examples, 1).")
    return flat


def read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, kinds: str = "biuf") -> np.ndarray:
    """One array of an open .npz, of numbers or of other `kinds` of NumPy's types, never of objects.

    Its header is trusted only if the archive holds as many bytes as it declares.

    Raises:
        UserError: it holds something else, or another number of bytes.
    """
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    where = f"{path}: {info.filename}"
    with archive.open(info) as file:
        try:
            shape, fortran_order, dtype = readers[np.lib.format.read_magic(file)](file)
        except (ValueError, KeyError, TypeError, SyntaxError, TokenError, MemoryError, RecursionError) as error:
            raise UserError(f"{where} is not a readable NumPy array ({error}).") from None
        if dtype.hasobject:
            raise UserError(f"{where} contains Python objects, which are never loaded. Save it as an array of numbers.")
        if dtype.kind not in kinds:
            raise UserError(f"{where} is {dtype}; it must be an array of numbers.")
        declared = math.prod(shape) * dtype.itemsize
        available = info.file_size - file.tell()
        if declared > MAX_ARRAY_BYTES or declared != available or min(shape, default=0) < 0:
            raise UserError(
                f"{where} declares shape {shape} of {dtype}, {declared:,} bytes, but has {available:,} "
                f"(the limit is {MAX_ARRAY_BYTES:,}). Download the file again."
            )
        content = bytearray(file.read(declared))
        if len(content) != declared or file.read(1):
            raise UserError(f"{where} does not have the {declared:,} bytes that it declares. Download the file again.")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran_order else "C")

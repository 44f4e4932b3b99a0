"""Keras's .h5 files: read in all layouts, written in the one that every version of Keras loads.

Layouts (keras/src/legacy/saving/legacy_h5_format.py and keras/src/saving/saving_lib.py):

- weights of Keras 1 and 2: `block1_conv1/block1_conv1_W_1:0`, `block1_conv1/block1_conv1/kernel:0`;
- whole models: the same below `model_weights`, in a nested model `model_weights/vgg16/vgg16/block1_conv1/kernel`;
- Keras 3's .weights.h5: `layers/conv2d/vars/0`, where the group `vars` carries the layer's name as an attribute.
"""

import itertools
import json
import math
import os
import re
import subprocess
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vision_transfer.errors import UserError
from vision_transfer.models.pretrained import hdf5_listing
from vision_transfer.models.pretrained.tensors import StoredTensor, damaged, digest_order, file_dtype, printable
from vision_transfer.runtime.files import replaced_file

SIGNATURE = b"\x89HDF\r\n\x1a\n"
# Time for a listing; that of a good file takes half a second.
LISTING_SECONDS = 30.0
# Each thread of NumPy's linear algebra would take some of the listing's little address space. Locks are not needed for
# reading, and not every file system has them.
LISTING_ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "HDF5_USE_FILE_LOCKING": "FALSE",
}
# Keras's optimizer state, whose tensors also have the names of layers.
OPTIMIZER_GROUPS = ("optimizer_weights", "optimizer")
# The group of Keras 3 in which a layer's tensors are.
VARIABLES_GROUP = "vars"
# Bytes by which deflate may lengthen what cannot be compressed: 64, and one in 1,024; zlib itself needs fewer
# (zlib.net/zlib_tech.html).
DEFLATE_BYTES, DEFLATE_SHARE = 64, 1024
# Pieces of so many numbers may be larger than their data set.
MIN_PIECE_SIZE = 1 << 16
# Attributes that Keras writes into weights files of this layout and expects in them: the last version that has it.
ATTRIBUTES = {"keras_version": "2.15.0", "backend": "tensorflow"}


@dataclass(frozen=True)
class Pieces:
    """Where a data set's pieces are, as `hdf5_listing` gives it."""

    shape: list[int]
    filters: list[str]
    places: list[list[int]]


@contextmanager
def open_keras_h5(path: Path) -> Iterator[list[StoredTensor]]:
    """The tensors of a Keras .h5 file; their words are the groups around them, the layer, and the parameter.

    Raises:
        UserError: the file is not an HDF5 file, or is truncated or damaged.
    """
    yield list_keras_h5(path, {})


def list_keras_h5(path: Path, layer_names: Mapping[str, str]) -> list[StoredTensor]:
    """The same; `layer_names` gives the names of layers, by their groups, that the file itself does not name."""
    return [
        _stored_tensor(path, dataset, layer_names)
        for dataset in _listing(path)
        if not (dataset["groups"] and dataset["groups"][0] in OPTIMIZER_GROUPS)
    ]


def write_keras_h5(path: Path, params: Mapping[str, Mapping[str, Any]]) -> None:
    """Writes parameters as a legacy Keras weights file, which `model.load_weights(path)` loads in Keras 2 and 3.

    Keras assigns layers by their order in the file, not by name, and in each layer kernel and bias. The file is written
    atomically. `params` (layer → parameter → array, HWIO or in × out) are in network order.

    Raises:
        UserError: the name does not end in `.h5`, or ends in `.weights.h5`, which for Keras 3 means its own format; or
            the file cannot be written.
    """
    import h5py

    if path.suffix != ".h5" or path.name.endswith(".weights.h5"):
        raise UserError(f"{path}: Keras loads this layout from names in .h5 that do not end in .weights.h5; rename it")
    try:
        with replaced_file(path) as temporary, h5py.File(temporary, "w") as file:
            layers = {
                layer: {name: by_name[name] for name in digest_order(by_name)} for layer, by_name in params.items()
            }
            write_layers(file, layers)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error}") from error


def write_layers(file: Any, layers: Mapping[str, Mapping[str, Any]]) -> None:
    """Writes layers and their parameters, in the given order, into an open file or a group of it."""
    file.attrs.update(ATTRIBUTES)
    file.attrs["layer_names"] = [layer.encode() for layer in layers]
    for layer, parameters in layers.items():
        group = file.create_group(layer)
        names = {parameter: f"{layer}/{parameter}:0" for parameter in parameters}
        group.attrs["weight_names"] = [name.encode() for name in names.values()]
        for parameter, name in names.items():
            group.create_dataset(name, data=np.asarray(parameters[parameter], np.float32))


def _listing(path: Path) -> Iterable[dict[str, Any]]:
    command = [sys.executable, "-P", hdf5_listing.__file__, str(path.absolute())]
    try:
        answer = subprocess.run(
            command,
            env=os.environ | LISTING_ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=LISTING_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(
            f"weights file {path}: its tensors were not listed within {LISTING_SECONDS:.0f} s; the file is damaged, "
            "or its disk does not answer. Check the disk, or download the file again."
        ) from error
    if answer.returncode != 0:
        lines = answer.stderr.decode("ascii", "replace").strip().splitlines()
        reason = (
            printable(lines[-1].strip("'\"")) if lines else f"the HDF5 library ended with status {answer.returncode}"
        )
        raise damaged(path, f"not a readable HDF5 file ({reason})")
    return json.loads(answer.stdout)


def _stored_tensor(path: Path, dataset: dict[str, Any], layer_names: Mapping[str, str]) -> StoredTensor:
    groups: list[str] = dataset["groups"]
    shape = tuple(dataset["shape"])
    name = "/".join([*groups, dataset["name"]])
    words, place = (*groups, dataset["name"]), dataset["place"]
    if groups[-1:] == [VARIABLES_GROUP]:
        # the group has a name by class and number in the order of the layers, `conv2d_3`
        *around, numbered = groups[:-1] or [""]
        layer = dataset["layer"] or layer_names.get("/".join(groups[:-1]))
        words, place = (*around, layer or numbered, dataset["name"]), _number(numbered)
        name += f" ({layer})" if layer else ""
    return StoredTensor(
        name=name,
        words=words,
        shape=shape,
        dtype=dataset["dtype"],
        read=partial(_read, path, name, dataset),
        unreadable=dataset["unreadable"],
        place=place,
    )


def _number(name: str) -> int:
    number = re.search(r"_(\d{1,9})$", name)
    return int(number[1]) if number else 0


def _read(path: Path, name: str, dataset: dict[str, Any]) -> np.ndarray:
    shape, dtype = tuple(dataset["shape"]), file_dtype(dataset["dtype"])
    if dataset["pieces"] is not None:
        return _read_pieces(path, name, Pieces(**dataset["pieces"]), shape, dtype).astype(np.float32, copy=False)
    count, offset = math.prod(shape), dataset["offset"]
    values = np.fromfile(path, dtype=dtype, count=count, offset=offset)
    if values.size != count:
        raise damaged(path, f"{name} should have {count:,} numbers from byte {offset:,}, and has {values.size:,}")
    return values.reshape(shape).astype(np.float32, copy=False)


def _read_pieces(path: Path, name: str, pieces: Pieces, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    """The values of a data set in pieces, which are all of one shape and may extend beyond its end."""
    size = math.prod(pieces.shape)
    steps = [range(0, length, step) for length, step in zip(shape, pieces.shape, strict=True)]
    corners = {tuple(corner) for _, _, _, *corner in pieces.places}
    if math.prod(map(len, steps)) != len(pieces.places) or corners != set(itertools.product(*steps)):
        raise damaged(path, f"{name} does not have all of its pieces")
    if size > max(MIN_PIECE_SIZE, math.prod(shape) << len(shape)):
        raise damaged(path, f"{name} has pieces of {size:,} numbers, more than itself")
    values = np.empty(shape, dtype)
    with path.open("rb") as stream:
        for offset, length, omitted, *corner in pieces.places:
            stream.seek(offset)
            content = stream.read(min(length, size * dtype.itemsize + DEFLATE_BYTES + size // DEFLATE_SHARE))
            filters = [name for bit, name in enumerate(pieces.filters) if not omitted >> bit & 1]
            content = _unfiltered(content, filters, size, dtype.itemsize)
            if len(content) != size * dtype.itemsize:
                raise damaged(path, f"{name} has a piece at byte {offset:,} that does not hold its values")
            here = values[tuple(slice(start, start + step) for start, step in zip(corner, pieces.shape, strict=True))]
            here[...] = np.frombuffer(content, dtype).reshape(pieces.shape)[tuple(map(slice, here.shape))]
    return values


def _unfiltered(content: bytes, filters: Iterable[str], count: int, item_bytes: int) -> bytes:
    """The bytes of a piece before HDF5's filters were applied in this order; empty if they cannot be undone."""
    for name in reversed(list(filters)):
        if name == "deflate":
            decompressor = zlib.decompressobj()
            try:
                # one byte more shows that there is more than there should be
                content = decompressor.decompress(content, count * item_bytes + 1)
            except zlib.error:
                return b""
        elif len(content) == count * item_bytes:
            # shuffled: the first bytes of all numbers, then their second bytes, and so on
            content = np.frombuffer(content, np.uint8).reshape(item_bytes, count).T.tobytes()
    return content

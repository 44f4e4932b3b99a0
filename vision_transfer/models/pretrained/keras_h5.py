"""Keras's .h5 files: read in all layouts, written in the one that every version of Keras loads.

Layouts (keras/src/legacy/saving/legacy_h5_format.py and keras/src/saving/saving_lib.py):

- weights of Keras 1 and 2: `block1_conv1/block1_conv1_W_1:0`, `block1_conv1/block1_conv1/kernel:0`;
- whole models: the same below `model_weights`, in a nested model `model_weights/vgg16/vgg16/block1_conv1/kernel`;
- Keras 3's .weights.h5: `layers/conv2d/vars/0`, where the group `vars` carries the layer's name as an attribute.
"""

import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vision_transfer.errors import UserError
from vision_transfer.models.pretrained import hdf5_listing
from vision_transfer.models.pretrained.tensors import StoredTensor, damaged, digest_order, printable
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
# Names of parameters in Keras 1, and their numbers in Keras 3.
PARAMETER_ALIASES = {"W": "kernel", "b": "bias", "0": "kernel", "1": "bias"}
# Attributes that Keras writes into weights files of this layout and expects in them: the last version that has it.
ATTRIBUTES = {"keras_version": "2.15.0", "backend": "tensorflow"}


@contextmanager
def open_keras_h5(path: Path) -> Iterator[list[StoredTensor]]:
    """The tensors of a Keras .h5 file; their words are the groups around them and, last, the parameter (`kernel`).

    Raises:
        UserError: the file is not an HDF5 file, or is truncated or damaged.
    """
    yield [
        _stored_tensor(path, dataset)
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


def _stored_tensor(path: Path, dataset: dict[str, Any]) -> StoredTensor:
    groups: list[str] = dataset["groups"]
    layer: list[str] = [dataset["layer"]] if dataset["layer"] else []
    shape = tuple(dataset["shape"])
    name = "/".join([*groups, dataset["name"]]) + (f" ({layer[0]})" if layer else "")
    return StoredTensor(
        name=name,
        words=(*groups, *layer, _parameter(dataset["name"])),
        shape=shape,
        dtype=dataset["dtype"],
        read=partial(_read, path, name, dataset["offset"], shape),
        unreadable=dataset["unreadable"],
    )


def _parameter(name: str) -> str:
    """`kernel:0`, `kernel_1:0`, `block1_conv1_W_1:0`, `0` → `kernel`."""
    bare = re.sub(r":\d+$", "", name)
    word = re.sub(r"(?<=.)_\d+$", "", bare).rsplit("_", 1)[-1]
    return PARAMETER_ALIASES.get(word, word)


def _read(path: Path, name: str, offset: int, shape: tuple[int, ...]) -> np.ndarray:
    count = math.prod(shape)
    values = np.fromfile(path, dtype="<f4", count=count, offset=offset)
    if values.size != count:
        raise damaged(path, f"{name} should have {count:,} numbers from byte {offset:,}, and has {values.size:,}")
    return values.reshape(shape)

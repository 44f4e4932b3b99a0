"""Keras's .h5 files: read in all layouts, written in the one that every version of Keras loads.

Layouts (keras/src/legacy/saving/legacy_h5_format.py and keras/src/saving/saving_lib.py):

- weights of Keras 1 and 2: `block1_conv1/block1_conv1_W_1:0`, `block1_conv1/block1_conv1/kernel:0`;
- whole models: the same below `model_weights`, in a nested model `model_weights/vgg16/vgg16/block1_conv1/kernel`;
- Keras 3's .weights.h5: `layers/conv2d/vars/0`, where the group `vars` carries the layer's name as an attribute.
"""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vision_transfer.errors import UserError
from vision_transfer.models.pretrained import hdf5_reader
from vision_transfer.models.pretrained.tensors import StoredTensor, damaged, printable

SIGNATURE = b"\x89HDF\r\n\x1a\n"
# Time for an answer of the reading process; the listing of a good file takes half a second.
ANSWER_SECONDS = 30.0
# Each thread of NumPy's linear algebra would take some of its little address space. Locks are not needed for
# reading, and not every file system has them.
READER_ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "HDF5_USE_FILE_LOCKING": "FALSE",
}
# Keras's optimizer state, whose tensors also have the names of layers.
OPTIMIZER_GROUPS = ("optimizer_weights", "optimizer")
# The group of Keras 3 in which a layer's tensors are.
VARIABLES_GROUP = "vars"
# Attributes that Keras writes into weights files of this layout and expects in them: the last version that has it.
ATTRIBUTES = {"keras_version": "2.15.0", "backend": "tensorflow"}


# Reads an HDF5 file: the JSON of its listing, or the values of the data set that is named.
Ask = Callable[[Path, str | None], bytes]


@contextmanager
def open_keras_h5(path: Path) -> Iterator[list[StoredTensor]]:
    """The tensors of a Keras .h5 file; their words are the groups around them, the layer, and the parameter.

    Raises:
        UserError: the file is not an HDF5 file, or is truncated or damaged.
    """
    with reading_process() as ask:
        yield list_keras_h5(path, {}, ask)


def list_keras_h5(path: Path, layer_names: Mapping[str, str], ask: Ask) -> list[StoredTensor]:
    """The same; `layer_names` gives the names of layers, by their groups, that the file itself does not name."""
    return [
        _stored_tensor(path, dataset, layer_names, ask)
        for dataset in json.loads(ask(path, None))
        if not (dataset["groups"] and dataset["groups"][0] in OPTIMIZER_GROUPS)
    ]


def write_layers(file: Any, layers: Mapping[str, Mapping[str, Any]]) -> None:
    """Writes layers and their parameters, in the given order, into an open file or a group of it.

    Keras assigns them by this order, not by their names.
    """
    file.attrs.update(ATTRIBUTES)
    file.attrs["layer_names"] = [layer.encode() for layer in layers]
    for layer, parameters in layers.items():
        group = file.create_group(layer)
        names = {parameter: f"{layer}/{parameter}:0" for parameter in parameters}
        group.attrs["weight_names"] = [name.encode() for name in names.values()]
        for parameter, name in names.items():
            group.create_dataset(name, data=np.asarray(parameters[parameter], np.float32))


@contextmanager
def reading_process() -> Iterator[Ask]:
    """A process that reads HDF5 files, and is ended if that takes too long; see `hdf5_reader`."""
    process = subprocess.Popen(
        [sys.executable, "-P", hdf5_reader.__file__],
        env=os.environ | READER_ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield partial(_answer, process)
    finally:
        process.kill()
        process.communicate()


def _answer(process: "subprocess.Popen[bytes]", path: Path, name: str | None) -> bytes:
    assert process.stdin is not None and process.stdout is not None, "both are pipes"
    late = threading.Event()
    timer = threading.Timer(ANSWER_SECONDS, lambda: (late.set(), process.kill()))
    try:
        timer.start()
    except RuntimeError as error:  # Python's word for a thread that gets no memory
        raise MemoryError(str(error)) from error
    try:
        process.stdin.write(json.dumps([str(path.absolute()), name]).encode() + b"\n")
        process.stdin.flush()
        answer = json.loads(process.stdout.readline() or '{"bytes": 1}')
        if "error" in answer:
            raise damaged(path, f"not a readable HDF5 file ({printable(answer['error'])})")
        if len(content := process.stdout.read(answer["bytes"])) == answer["bytes"]:
            return content
    except BrokenPipeError:
        pass
    finally:
        timer.cancel()
    if late.is_set():
        raise UserError(
            f"weights file {path}: its tensors were not read within {ANSWER_SECONDS:.0f} s; the file is damaged, or "
            "its disk does not answer. Check the disk, or download the file again."
        )
    raise damaged(path, f"not a readable HDF5 file (the HDF5 library ended with status {process.wait()})")


def _stored_tensor(path: Path, dataset: dict[str, Any], layer_names: Mapping[str, str], ask: Ask) -> StoredTensor:
    groups: list[str] = dataset["groups"]
    shape = tuple(dataset["shape"])
    name = inside = "/".join([*groups, dataset["name"]])
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
        read=lambda: np.frombuffer(ask(path, inside), np.float32).reshape(shape).copy(),
        unreadable=dataset["unreadable"],
        place=place,
    )


def _number(name: str) -> int:
    number = re.search(r"_(\d{1,9})$", name)
    return int(number[1]) if number else 0

"""Keras 3's .keras files: a zip of metadata, the model's configuration and its weights as HDF5.

Some versions of Keras name the layers in the HDF5 file by class and number only; their names are then in the
configuration (keras/src/saving/saving_lib.py).
"""

import json
import re
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import copyfileobj
from typing import Any

from vision_transfer.errors import UserError
from vision_transfer.models.pretrained.keras_h5 import list_keras_h5, reading_process
from vision_transfer.models.pretrained.tensors import ZIP_DAMAGE, StoredTensor, damaged, printable

WEIGHTS_NAME, CONFIG_NAME = "model.weights.h5", "config.json"
# Longest configuration; Xception's has 120 kB.
MAX_CONFIG_BYTES = 16 << 20
# Most models inside models.
MAX_DEPTH = 8
# Float32 weights compress to nine tenths; what shrinks more than this is no network.
MAX_COMPRESSION = 100


@contextmanager
def open_keras_archive(path: Path) -> Iterator[list[StoredTensor]]:
    """The tensors of a .keras file, readable while it is open; no layer is made and no code in it is run.

    Raises:
        UserError: the file is damaged, or compressed beyond measure, or there is no room to unpack it.
    """
    with tempfile.TemporaryDirectory() as folder:
        unpacked = Path(folder) / WEIGHTS_NAME
        try:
            with zipfile.ZipFile(path) as archive:
                names = _layer_names(path, archive)
                _unpack(path, archive, unpacked)
        except ZIP_DAMAGE as error:
            raise damaged(path, f"not a readable zip file ({printable(str(error))})") from error
        except OSError as error:
            raise UserError(
                f"weights file {path}: it cannot be unpacked into {folder}: {error.strerror or error}"
            ) from error
        with reading_process() as ask:
            try:
                tensors = list_keras_h5(unpacked, names, ask)
            except UserError as error:
                raise UserError(f"weights file {path}: {error}") from error
            yield tensors


def is_keras_archive(path: Path) -> bool:
    """Whether a zip file has the weights of a .keras file."""
    try:
        with zipfile.ZipFile(path) as archive:
            return WEIGHTS_NAME in archive.namelist()
    except ZIP_DAMAGE as error:
        raise damaged(path, f"not a readable zip file ({printable(str(error))})") from error


def _unpack(path: Path, archive: zipfile.ZipFile, target: Path) -> None:
    entry = archive.getinfo(WEIGHTS_NAME)
    if entry.file_size > MAX_COMPRESSION * max(1, entry.compress_size) or entry.compress_size > path.stat().st_size:
        raise damaged(path, f"its {WEIGHTS_NAME} claims {entry.file_size:,} bytes in {entry.compress_size:,}")
    with archive.open(entry) as source, target.open("wb") as stream:
        copyfileobj(source, stream)


def _layer_names(path: Path, archive: zipfile.ZipFile) -> dict[str, str]:
    """The groups of the layers in the HDF5 file → their names in the configuration."""
    if CONFIG_NAME not in archive.namelist():
        return {}
    if (size := archive.getinfo(CONFIG_NAME).file_size) > MAX_CONFIG_BYTES:
        raise damaged(path, f"its {CONFIG_NAME} has {size:,} bytes, more than {MAX_CONFIG_BYTES:,}")
    with archive.open(CONFIG_NAME) as stream:
        text = stream.read(MAX_CONFIG_BYTES)
    try:
        return dict(_names_below("", json.loads(text), 0))
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"its {CONFIG_NAME} is not JSON") from error


def _names_below(group: str, model: Any, depth: int) -> Iterator[tuple[str, str]]:
    layers = _item(_item(model, "config"), "layers")
    numbers: Counter[str] = Counter()
    for layer in layers if isinstance(layers, list) and depth < MAX_DEPTH else []:
        kind, name = _item(layer, "class_name"), _item(_item(layer, "config"), "name")
        if not isinstance(kind, str) or not isinstance(name, str):
            continue
        kind = snake_case(kind)
        number = numbers[kind]
        numbers[kind] += 1
        inside = f"{group}layers/{kind}_{number}" if number else f"{group}layers/{kind}"
        yield inside, name
        yield from _names_below(f"{inside}/", layer, depth + 1)


def _item(node: Any, key: str) -> Any:
    return node.get(key) if isinstance(node, dict) else None


def snake_case(name: str) -> str:
    """`SeparableConv2D` → `separable_conv2d`, as keras/src/utils/naming.py does."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()

"""Safetensors files: our own, which are the cache, and PyTorch's."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vision_transfer.errors import UserError
from vision_transfer.models.pretrained.tensors import Params, StoredTensor, printable
from vision_transfer.runtime.files import replaced_file

# The file starts with the length of its header, little-endian, and the header's first character.
LENGTH_BYTES = 8
HEADER_START = b"{"
# Longest header parsed; VGG19's has 4 kB.
MAX_HEADER_BYTES = 4 << 20
FLOAT32 = "F32"


@contextmanager
def open_safetensors(path: Path) -> Iterator[list[StoredTensor]]:
    """The tensors of a safetensors file, to be read while it is open; their words are those between slashes.

    Raises:
        UserError: the file is no safetensors file, or truncated, or its header does not fit its content.
    """
    with _opened(path) as file:
        yield [_stored_tensor(path, file, name) for name in file.keys()]  # noqa: SIM118 (it is no dict)


def read_metadata(path: Path) -> dict[str, str]:
    """The texts in the header of a safetensors file.

    Raises:
        UserError: as `open_safetensors`.
    """
    with _opened(path) as file:
        return dict(file.metadata() or {})


def write_safetensors(path: Path, params: Params, metadata: Mapping[str, str]) -> None:
    """Writes tensors as `layer/parameter`, with texts in the header; the file appears whole or not at all.

    Raises:
        OSError: the folder cannot be written to, or the disk is full.
    """
    from safetensors.numpy import save

    tensors = {
        f"{layer}/{parameter}": values
        for layer, parameters in params.items()
        for parameter, values in parameters.items()
    }
    with replaced_file(path) as temporary:
        temporary.write_bytes(save(tensors, metadata=dict(metadata)))


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(LENGTH_BYTES), "little")
    if length > MAX_HEADER_BYTES:
        raise UserError(
            f"weights file {path}: its first {LENGTH_BYTES} bytes announce a header of {length:,} bytes, more than the "
            f"{MAX_HEADER_BYTES:,} of any network's; it is no safetensors file, or damaged. Get it anew."
        )
    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except SafetensorError as error:
        reason = printable(str(error).removeprefix("Error while deserializing header: "))
        raise UserError(
            f"weights file {path}: not a safetensors file, truncated, or damaged ({reason}). Get it anew."
        ) from error


def _stored_tensor(path: Path, file: Any, name: str) -> StoredTensor:
    piece = file.get_slice(name)
    dtype = piece.get_dtype()
    return StoredTensor(
        name=name,
        words=tuple(name.split("/")),
        shape=tuple(piece.get_shape()),
        dtype="float32" if dtype == FLOAT32 else dtype,
        read=partial(_read, file, name),
    )


def _read(file: Any, name: str) -> np.ndarray:
    return file.get_tensor(name)

"""Safetensors files: those of the cache, and PyTorch's."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from vision_transfer.models.pretrained.tensors import Params, StoredTensor, damaged, printable
from vision_transfer.runtime.files import replaced_file

# The file starts with the length of its header, little-endian, then the header's first character.
LENGTH_BYTES = 8
HEADER_START = b"{"
# Longest header; VGG19's has 4 kB.
MAX_HEADER_BYTES = 4 << 20
# Numpy's names of the types that can be read.
DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@contextmanager
def open_safetensors(path: Path) -> Iterator[list[StoredTensor]]:
    """The tensors of a safetensors file, readable while it is open; their words are the parts between slashes.

    Raises:
        UserError: the file is not a safetensors file, or is truncated, or its header does not match its content.
    """
    with _opened(path) as file:
        yield [_stored_tensor(path, file, name) for name in file.keys()]  # noqa: SIM118 (not a dict)


def read_metadata(path: Path) -> dict[str, str]:
    """The texts in the header of a safetensors file."""
    with _opened(path) as file:
        return dict(file.metadata() or {})


def write_safetensors(path: Path, params: Params, metadata: Mapping[str, str]) -> None:
    """Writes tensors as `layer/parameter`, with texts in the header, atomically."""
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
    # safetensors knows numpy's bfloat16 once this is imported
    import ml_dtypes  # noqa: F401
    from safetensors import SafetensorError, safe_open

    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(LENGTH_BYTES), "little")
    if length > MAX_HEADER_BYTES:
        raise damaged(path, f"the length of its header is {length:,} bytes, more than the {MAX_HEADER_BYTES:,} allowed")
    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except SafetensorError as error:
        reason = printable(str(error).removeprefix("Error while deserializing header: "))
        raise damaged(path, f"not a readable safetensors file ({reason})") from error


def _stored_tensor(path: Path, file: Any, name: str) -> StoredTensor:
    piece = file.get_slice(name)
    dtype: str = piece.get_dtype()
    return StoredTensor(
        name=name,
        words=tuple(name.split("/")),
        shape=tuple(piece.get_shape()),
        dtype=DTYPES.get(dtype, dtype),
        read=lambda: file.get_tensor(name).astype(np.float32, copy=False),
    )

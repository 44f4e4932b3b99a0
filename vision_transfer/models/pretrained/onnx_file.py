"""ONNX files: their initializers, listed without making the objects of the whole model.

The `onnx` package turns a whole file into objects before anything can be read, and a hostile file of 10 MB becomes
850 MB of them (measured: empty messages of two bytes each). So protobuf parses it here by a schema of its own: the few
fields of onnx.proto that are needed, with messages and numbers as bytes, each of which is parsed when its turn comes.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from vision_transfer.models.pretrained.tensors import StoredTensor, damaged, file_dtype, printable

# ModelProto, GraphProto and TensorProto of onnx.proto: type and number of each field.
FIELDS = {
    "Model": {"graph": ("bytes", 7)},
    "Graph": {"initializer": ("repeated bytes", 5)},
    "Tensor": {
        "dims": ("repeated int64", 1),
        "data_type": ("int32", 2),
        # Packed numbers are little-endian bytes, like raw data.
        "float_data": ("bytes", 4),
        "name": ("bytes", 8),
        "raw_data": ("bytes", 9),
        "data_location": ("int32", 14),
    },
}
# ONNX's types that can be read (onnx.proto's DataType), and its number for values in another file.
DTYPES = {1: "float32", 10: "float16", 16: "bfloat16"}
EXTERNAL = 1
# Most initializers in a file; VGG19 has 38.
MAX_INITIALIZERS = 100_000


@contextmanager
def open_onnx(path: Path) -> Iterator[list[StoredTensor]]:
    """The initializers (weights) of an ONNX file; their words are the parts of their names between slashes.

    Values in other files (ONNX's external data) are not read.

    Raises:
        UserError: the file is not an ONNX file, or is truncated or damaged.
    """
    from google.protobuf.message import DecodeError

    try:
        initializers = _parsed("Graph", _parsed("Model", path.read_bytes()).graph).initializer
        if len(initializers) > MAX_INITIALIZERS:
            raise damaged(path, f"not a readable ONNX file (more than {MAX_INITIALIZERS:,} initializers)")
        yield [_stored_tensor(path, _parsed("Tensor", content)) for content in initializers]
    except DecodeError as error:
        raise damaged(path, f"not a readable ONNX file ({printable(str(error))})") from error


def _parsed(kind: str, content: bytes) -> Any:
    return _messages()[kind].FromString(content)


@cache
def _messages() -> dict[str, Any]:
    """Protobuf's classes of the messages in `FIELDS`."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="vision_transfer_onnx.proto", package="vision_transfer")
    for kind, fields in FIELDS.items():
        message = file.message_type.add(name=kind)
        for name, (declared, number) in fields.items():
            field = message.field.add(name=name, number=number)
            field.type = getattr(field, f"TYPE_{declared.removeprefix('repeated ').upper()}")
            field.label = field.LABEL_REPEATED if declared.startswith("repeated") else field.LABEL_OPTIONAL
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    descriptors = {kind: pool.FindMessageTypeByName(f"{file.package}.{kind}") for kind in FIELDS}
    return {kind: message_factory.GetMessageClass(descriptor) for kind, descriptor in descriptors.items()}


def _stored_tensor(path: Path, tensor: Any) -> StoredTensor:
    name, shape = tensor.name.decode("utf-8", "replace"), tuple(tensor.dims)
    dtype = DTYPES.get(tensor.data_type, f"ONNX type {tensor.data_type}")
    unreadable = "stored in another file" if tensor.data_location == EXTERNAL else ""
    read = partial(_read, path, name, tensor.raw_data or tensor.float_data, shape, dtype)
    return StoredTensor(name, tuple(name.split("/")), shape, dtype, read, unreadable)


def _read(path: Path, name: str, content: bytes, shape: tuple[int, ...], dtype_name: str) -> np.ndarray:
    dtype = file_dtype(dtype_name)
    wanted = math.prod(shape) * dtype.itemsize
    if len(content) != wanted:
        found = f"{len(content):,} bytes"
        raise damaged(path, f"{name} has shape {shape}, which is {wanted:,} bytes, but {found} of values")
    return np.frombuffer(content, dtype).reshape(shape).astype(np.float32)

"""ONNX files: their initializers, listed without loading the model.

The `onnx` package turns a whole file into objects before anything can be read, and a hostile file of 10 MB becomes
850 MB of them (measured: empty messages of two bytes each). So the outer levels of the file, nested length-prefixed
fields (protobuf's wire format, protobuf.dev/programming-guides/encoding), are parsed here in place and within bounds;
`onnx` then parses the small header of each initializer.
"""

import math
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from vision_transfer.models.pretrained.tensors import StoredTensor, damaged, file_dtype, unread

# Field numbers of onnx.proto: ModelProto.graph, GraphProto.initializer, TensorProto.float_data, TensorProto.raw_data.
GRAPH_FIELD = 7
INITIALIZER_FIELD = 5
FLOAT_DATA_FIELD = 4
RAW_DATA_FIELD = 9
# Protobuf's wire types: number of variable length, 8 bytes, length and content, 4 bytes.
VARINT, FIXED64, LENGTH_DELIMITED, FIXED32 = 0, 1, 2, 5
FIXED_LENGTHS = {FIXED64: 8, FIXED32: 4}
# A varint has 64 bits, 7 per byte.
MAX_VARINT_BYTES = 10
# Most fields in a file; VGG19's graph has several hundred.
MAX_FIELDS = 100_000
# ONNX's types that can be read (onnx.proto's DataType).
DTYPES = {1: "float32", 10: "float16", 16: "bfloat16"}
# Longest header of an initializer: name, dimensions, type.
MAX_HEADER_BYTES = 4096


class _MalformedError(Exception):
    """The bytes are not protobuf; the message tells where."""


@dataclass(frozen=True)
class _Field:
    """A field of a message: its number, and the offsets of it and its content in the file."""

    number: int
    wire_type: int
    start: int
    content: int
    end: int


@contextmanager
def open_onnx(path: Path) -> Iterator[list[StoredTensor]]:
    """The initializers (weights) of an ONNX file; their words are the parts of their names between slashes.

    Values in other files (ONNX's external data) are not read.

    Raises:
        UserError: the file is not an ONNX file, or is truncated or damaged.
    """
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        try:
            tensors = list(_initializers(path, content))
        except _MalformedError as error:
            raise damaged(path, f"not a readable ONNX file ({error})") from error
        yield tensors


def _initializers(path: Path, content: mmap.mmap) -> Iterator[StoredTensor]:
    budget = [MAX_FIELDS]
    for graph in _fields(content, 0, len(content), budget):
        if (graph.number, graph.wire_type) != (GRAPH_FIELD, LENGTH_DELIMITED):
            continue
        for initializer in _fields(content, graph.content, graph.end, budget):
            if (initializer.number, initializer.wire_type) == (INITIALIZER_FIELD, LENGTH_DELIMITED):
                yield _stored_tensor(
                    path, content, list(_fields(content, initializer.content, initializer.end, budget))
                )


def _stored_tensor(path: Path, content: mmap.mmap, fields: list[_Field]) -> StoredTensor:
    import onnx
    from google.protobuf.message import DecodeError

    values = [field for field in fields if _holds_values(field)]
    others = [field for field in fields if not _holds_values(field)]
    if sum(field.end - field.start for field in others) > MAX_HEADER_BYTES:
        return StoredTensor("(an initializer with values of another type)", (), (), "not float32", unread)
    try:
        header = onnx.TensorProto.FromString(b"".join(content[field.start : field.end] for field in others))
    except DecodeError as error:
        raise _MalformedError(f"no initializer at byte {fields[0].start if fields else 0:,}") from error
    # protobuf returns a text that is not UTF-8 as bytes
    name = header.name if isinstance(header.name, str) else bytes(header.name).decode("utf-8", "replace")
    shape = tuple(header.dims)
    dtype = DTYPES.get(header.data_type, f"ONNX type {header.data_type}")
    if header.data_location == onnx.TensorProto.EXTERNAL:
        unreadable = "stored in another file"
    else:
        unreadable = "" if len(values) == 1 else "without values"
    return StoredTensor(
        name=name,
        words=tuple(name.split("/")),
        shape=shape,
        dtype=dtype,
        read=unread if unreadable else partial(_read, path, content, name, values[0], shape, dtype),
        unreadable=unreadable,
    )


def _holds_values(field: _Field) -> bool:
    """Whether it is float_data (packed) or raw_data; both are consecutive little-endian numbers."""
    return field.number in (FLOAT_DATA_FIELD, RAW_DATA_FIELD) and field.wire_type == LENGTH_DELIMITED


def _read(
    path: Path, content: mmap.mmap, name: str, field: _Field, shape: tuple[int, ...], dtype_name: str
) -> np.ndarray:
    dtype = file_dtype(dtype_name)
    wanted = math.prod(shape) * dtype.itemsize
    if field.end - field.content != wanted:
        found = f"{field.end - field.content:,} bytes"
        raise damaged(path, f"{name} has shape {shape}, which is {wanted:,} bytes, but {found} of values")
    return np.frombuffer(content, dtype, math.prod(shape), field.content).reshape(shape).astype(np.float32)


def _fields(content: mmap.mmap, start: int, end: int, budget: list[int]) -> Iterator[_Field]:
    """The fields of the message between two offsets; each takes one from the budget."""
    place = start
    while place < end:
        budget[0] -= 1
        if budget[0] < 0:
            raise _MalformedError(f"more than {MAX_FIELDS:,} fields")
        tag, inside = _varint(content, place, end)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == VARINT:
            _, field_end = _varint(content, inside, end)
        elif wire_type == LENGTH_DELIMITED:
            length, inside = _varint(content, inside, end)
            field_end = inside + length
        elif wire_type in FIXED_LENGTHS:
            field_end = inside + FIXED_LENGTHS[wire_type]
        else:
            raise _MalformedError(f"no field at byte {place:,}")
        if field_end > end or number == 0:
            raise _MalformedError(f"the field at byte {place:,} is longer than the message around it")
        yield _Field(number, wire_type, place, inside, field_end)
        place = field_end


def _varint(content: mmap.mmap, start: int, end: int) -> tuple[int, int]:
    """A number with 7 bits per byte, lowest first, and the offset after it."""
    value = 0
    for index, byte in enumerate(content[start : min(end, start + MAX_VARINT_BYTES)]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, start + index + 1
    raise _MalformedError(f"no number at byte {start:,}")

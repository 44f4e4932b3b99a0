"""Files of `torch.save`: state dicts in the zip format of PyTorch 1.6 and in the one before, read without PyTorch.

Formats (torch/serialization.py): the zip has `NAME/data.pkl`, which describes the tensors, and the values of each
storage uncompressed in `NAME/data/KEY`. The older format has five pickles, a magic number, the version, the byte order
and sizes of the machine, the description, and the keys of the storages; then, for each key in this order, the number of
elements in 8 bytes and the values.
"""

import io
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vision_transfer.errors import UserError
from vision_transfer.models.pretrained.tensors import ZIP_DAMAGE, StoredTensor, damaged, file_dtype, printable, unread
from vision_transfer.models.pretrained.torch_pickle import (
    ForbiddenPickleError,
    PickledTensor,
    RefusedPickleError,
    Storage,
    read_pickle,
)

# The first pickle of the older format, and its version.
MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
PROTOCOL_VERSION = 1001
COUNT_BYTES = 8
# Longest description; that of a network of 400 tensors has 60 kB.
MAX_PICKLE_BYTES = 8 << 20
# Most dictionaries around the tensors: `checkpoint["model"]["backbone"]`.
MAX_DEPTH = 4
PICKLE_NAME, BYTE_ORDER_NAME = "data.pkl", "byteorder"
# Bytes of an element of each type that PyTorch stores.
ITEM_BYTES = {"bfloat16": 2} | {
    name: np.dtype(name).itemsize
    for name in ("float16", "float32", "float64", "uint8", "int8", "int16", "int32", "int64", "bool")
}

# Reads so many bytes of a storage from a position in it.
Reader = Callable[[int, int], bytes]


@contextmanager
def open_torch_zip(path: Path) -> Iterator[list[StoredTensor]]:
    """The tensors of a file of `torch.save`, readable while it is open; nothing in it is run.

    Their names are the keys of the dictionaries around them, joined by dots.

    Raises:
        UserError: the file is not one of `torch.save`, is damaged, or holds something else than tensors.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {entry.filename.partition("/")[2]: entry for entry in archive.infolist()}
            description = _entry_bytes(path, archive, entries, PICKLE_NAME)
            if BYTE_ORDER_NAME in entries and _entry_bytes(path, archive, entries, BYTE_ORDER_NAME) != b"little":
                raise _big_endian(path)
            content = _described(path, lambda: read_pickle(io.BytesIO(description)))

            def reader(storage: Storage) -> Reader | str:
                entry = entries.get(f"data/{storage.key}")
                if entry is None:
                    return "without values"
                if entry.compress_type != zipfile.ZIP_STORED:
                    return "compressed"
                if entry.file_size != storage.count * ITEM_BYTES[storage.dtype]:
                    return f"with {entry.file_size:,} bytes of values"
                return partial(_read_entry, path, archive, entry)

            yield _stored_tensors(path, content, reader)
    except ZIP_DAMAGE as error:
        raise damaged(path, f"not a readable zip file ({printable(str(error))})") from error


@contextmanager
def open_torch_legacy(path: Path) -> Iterator[list[StoredTensor]]:
    """The same for files that `torch.save` wrote before version 1.6."""
    with path.open("rb") as stream:
        head = io.BytesIO(stream.read(MAX_PICKLE_BYTES))
        content, keys = _described(path, lambda: _legacy_pickles(path, head))
        places = _legacy_places(path, stream, head.tell(), keys, _storages(content))

        def reader(storage: Storage) -> Reader | str:
            return partial(_read_at, stream, places[storage.key]) if storage.key in places else "without values"

        yield _stored_tensors(path, content, reader)


def _described(path: Path, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except ForbiddenPickleError as error:
        raise UserError(
            f"weights file {path}: it asks for {error}, which is not a tensor, and a pickle that makes other objects "
            "can run code, so it is not read. Save the tensors alone: torch.save(model.state_dict(), 'weights.pth'), "
            "or safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"
        ) from error
    except RefusedPickleError as error:
        raise damaged(path, f"not a readable file of torch.save ({error})") from error


def _legacy_pickles(path: Path, head: io.BytesIO) -> tuple[Any, list[str]]:
    """The description and the keys of the storages."""
    if read_pickle(head) != MAGIC_NUMBER:
        raise RefusedPickleError("it starts with a pickle, but not with PyTorch's")
    if read_pickle(head) != PROTOCOL_VERSION:
        raise RefusedPickleError("another version of the format")
    machine = read_pickle(head)
    if not (isinstance(machine, dict) and machine.get("little_endian") is True):
        raise _big_endian(path)
    content = read_pickle(head)
    keys = read_pickle(head)
    if not (isinstance(keys, list) and all(isinstance(key, str) for key in keys)):
        raise RefusedPickleError("no list of storages")
    return content, keys


def _legacy_places(
    path: Path, stream: Any, start: int, keys: list[str], storages: Mapping[str, Storage]
) -> dict[str, int]:
    """The place of each storage's values in the file; the counts in front of them must be those described."""
    size = path.stat().st_size
    places: dict[str, int] = {}
    place = start
    for key in keys:
        if key not in storages:
            raise damaged(path, f"it has values under the key {printable(key)}, which no tensor names")
        stream.seek(place)
        count = int.from_bytes(stream.read(COUNT_BYTES), "little", signed=True)
        if count != storages[key].count:
            raise damaged(
                path, f"its storage {printable(key)} has {count:,} numbers, but {storages[key].count:,} are described"
            )
        places[key] = place + COUNT_BYTES
        place += COUNT_BYTES + count * ITEM_BYTES[storages[key].dtype]
        if place > size:
            raise damaged(path, f"it has {size:,} bytes, but its first {len(places)} storages need {place:,}")
    return places


def _stored_tensors(path: Path, content: Any, reader: Callable[[Storage], Reader | str]) -> list[StoredTensor]:
    tensors = []
    for name, tensor in _named_tensors(content):
        read = reader(tensor.storage)
        facts = StoredTensor(name, tuple(name.split("/")), tensor.shape, tensor.storage.dtype, unread)
        if isinstance(read, str):
            tensors.append(replace(facts, unreadable=read))
        elif outside := _outside(tensor):
            tensors.append(replace(facts, unreadable=outside))
        else:
            tensors.append(replace(facts, read=partial(_values, path, name, tensor, read)))
    if not tensors:
        raise UserError(
            f"weights file {path}: it holds a {type(content).__name__} without tensors; save the tensors of the "
            "network: torch.save(model.state_dict(), 'weights.pth')"
        )
    return tensors


def _named_tensors(content: Any) -> Iterator[tuple[str, PickledTensor]]:
    """The tensors of nested dictionaries, each dictionary once, since it may hold itself."""
    seen: set[int] = set()
    waiting = [("", content, 0)]
    while waiting:
        prefix, value, depth = waiting.pop()
        if isinstance(value, PickledTensor):
            yield prefix.removesuffix("."), value
        elif isinstance(value, dict) and depth < MAX_DEPTH and id(value) not in seen:
            seen.add(id(value))
            waiting += [(f"{prefix}{key}.", inner, depth + 1) for key, inner in reversed(value.items())]


def _storages(content: Any) -> dict[str, Storage]:
    """The storages by their keys, also of what is no network (the state of an optimizer)."""
    found: dict[str, Storage] = {}
    seen: set[int] = set()
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, PickledTensor):
            found.setdefault(value.storage.key, value.storage)
        elif isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, list | tuple):
            waiting.extend(value)
    return found


def _span(tensor: PickledTensor) -> int:
    """Elements of the storage from the tensor's first to its last."""
    if 0 in tensor.shape:
        return 0
    return 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True))


def _outside(tensor: PickledTensor) -> str:
    """The fault of a tensor that claims more of its storage than there is, in words; empty if it does not."""
    end = tensor.offset + _span(tensor)
    return f"up to element {end:,} of {tensor.storage.count:,}" if end > tensor.storage.count else ""


def _values(path: Path, name: str, tensor: PickledTensor, read: Reader) -> np.ndarray:
    dtype = file_dtype(tensor.storage.dtype)
    # a tensor whose strides overlap (an expanded one) has fewer elements in the storage than in its shape
    wanted = _span(tensor) * dtype.itemsize
    content = read(tensor.offset * dtype.itemsize, wanted)
    if len(content) != wanted:
        raise damaged(path, f"{printable(name)} should have {wanted:,} bytes of values, and has {len(content):,}")
    flat = np.frombuffer(content, dtype)
    strides = [stride * dtype.itemsize for stride in tensor.strides]
    values = np.lib.stride_tricks.as_strided(flat, tensor.shape, strides, writeable=False)
    return values.astype(np.float32, order="C")


def _read_entry(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, start: int, count: int) -> bytes:
    try:
        with archive.open(entry) as stream:
            if start:
                stream.seek(start)
            # one byte more, so that a storage that is read whole is checked against its sum
            return stream.read(count + 1)[:count]
    except (*ZIP_DAMAGE, OSError) as error:
        raise damaged(
            path, f"its entry {printable(entry.filename)} cannot be read ({printable(str(error))})"
        ) from error


def _read_at(stream: Any, place: int, start: int, count: int) -> bytes:
    stream.seek(place + start)
    return stream.read(count)


def _entry_bytes(path: Path, archive: zipfile.ZipFile, entries: Mapping[str, zipfile.ZipInfo], name: str) -> bytes:
    """The content of a short entry."""
    if name not in entries:
        raise damaged(path, f"a zip file without {name}, so neither torch.save nor Keras wrote it")
    if entries[name].file_size > MAX_PICKLE_BYTES:
        raise damaged(path, f"its {name} has {entries[name].file_size:,} bytes, more than {MAX_PICKLE_BYTES:,}")
    with archive.open(entries[name]) as stream:
        return stream.read(MAX_PICKLE_BYTES)


def _big_endian(path: Path) -> UserError:
    return UserError(
        f"weights file {path}: its numbers are big-endian; save it again on a machine with little-endian ones, such as "
        "any PC"
    )

"""Pickles of PyTorch's state dicts, read without running anything that is in them.

A pickle is a program for a small stack machine whose instructions can import and call whatever they name. Here Python's
machine has only the instructions that `torch.save` writes for dictionaries, lists, texts, numbers and tensors, and a
tensor becomes a description of where its values are. torch/_weights_only_unpickler.py has the same idea.
"""

import io
import pickle
import pickletools
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vision_transfer.models.pretrained.tensors import printable

# Most instructions in a pickle; a network takes about 40 for each tensor.
MAX_INSTRUCTIONS = 500_000
# Those of protocols 2 to 4 that a state dict needs; a call is of one of `_CALLS`.
INSTRUCTIONS = frozenset(
    (
        *("PROTO", "FRAME", "MARK", "STOP", "BINPUT", "LONG_BINPUT", "MEMOIZE", "BINGET", "LONG_BINGET"),
        *("NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
        *("BINUNICODE", "SHORT_BINUNICODE", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
        *("EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_DICT", "SETITEM", "SETITEMS"),
        *("GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD", "BINPERSID"),
    )
)
# What Python's machine raises for a damaged program.
DAMAGE = (
    *(ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, EOFError, AssertionError),
    *(struct.error, pickle.UnpicklingError),
)
# PyTorch's storage classes, and the types of their elements.
STORAGE_DTYPES = {
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "DoubleStorage": "float64",
    "ByteStorage": "uint8",
    "CharStorage": "int8",
    "ShortStorage": "int16",
    "IntStorage": "int32",
    "LongStorage": "int64",
    "BoolStorage": "bool",
}
# Persistent ids of tensors' values: ("storage", class, key, device, number of elements), in the older format one more.
PERSISTENT_ID_LENGTHS = (5, 6)
# `_rebuild_tensor_v2(storage, offset, size, stride, …)`; what follows concerns gradients.
REBUILD_ARGUMENTS = 4
# Most dimensions of an array in numpy.
MAX_DIMENSIONS = 64


class RefusedPickleError(Exception):
    """A pickle holds something else than tensors, or is damaged; the message tells what."""


class ForbiddenPickleError(RefusedPickleError):
    """A pickle asks for a class or a function that is none of those of tensors."""


@dataclass(frozen=True)
class Storage:
    """Consecutive values in a file: their type, the key under which the file has them, and their claimed number."""

    dtype: str
    key: str
    count: int


@dataclass(frozen=True)
class PickledTensor:
    """A tensor as a pickle describes it; offset and strides count elements of the storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class _StorageClass:
    """One of PyTorch's, which a pickle may name but not call."""

    dtype: str


def read_pickle(stream: io.BytesIO) -> Any:
    """The object of one pickle: dictionaries, lists, tuples, texts, numbers and `PickledTensor`s.

    The stream then stands behind the pickle.

    Raises:
        ForbiddenPickleError: it asks for a class or a function other than those of tensors; none is imported.
        RefusedPickleError: it is damaged, too long, or has an instruction that no state dict needs.
    """
    try:
        return _Machine(stream).load()
    except DAMAGE as error:
        raise RefusedPickleError(f"its pickle is damaged ({printable(str(error) or 'it has no end')})") from error


# The machine that is written in Python; typeshed does not know its attributes.
_PythonMachine: Any = pickle._Unpickler


class _Machine(_PythonMachine):
    """Python's machine with few instructions, each of which is counted."""

    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream)
        self.taken = 0

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a class or a function that a pickle names."""
        whole = f"{_of_type(str, module)}.{_of_type(str, name)}"
        if module == "torch" and name in STORAGE_DTYPES:
            return _StorageClass(STORAGE_DTYPES[name])
        if whole not in _CALLS:
            raise ForbiddenPickleError(printable(whole))
        return _CALLS[whole]

    def persistent_load(self, pid: Any) -> Storage:
        """The storage that a persistent id describes."""
        match pid:
            case ("storage", _StorageClass(dtype), str(key), str(_), int(count), *view) if (
                len(pid) in PERSISTENT_ID_LENGTHS and count >= 0
            ):
                if any(part is not None for part in view):
                    raise RefusedPickleError("it has views of storages, which PyTorch wrote before version 0.4")
                return Storage(dtype, key, count)
            case _:
                raise RefusedPickleError("its pickle has values that are no storage of PyTorch's")

    def set_item(self) -> None:
        """Sets an entry of a dictionary."""
        value, key = self.stack.pop(), self.stack.pop()
        _set(self.stack[-1], [key, value])

    def set_items(self) -> None:
        """Sets the entries after the mark."""
        values = self.pop_mark()
        _set(self.stack[-1], values)

    def build(self) -> None:
        """Leaves out attributes of an OrderedDict, such as PyTorch's versions of modules."""
        self.stack.pop()
        _of_type(dict, self.stack[-1])


def _instruction(name: str, run: Callable[[Any], None]) -> Callable[[Any], None]:
    def counted(machine: _Machine) -> None:
        machine.taken += 1
        if machine.taken > MAX_INSTRUCTIONS:
            raise RefusedPickleError(f"its pickle has more than {MAX_INSTRUCTIONS:,} instructions")
        if name not in INSTRUCTIONS:
            raise RefusedPickleError(f"its pickle has the instruction {name}, of no state dict")
        run(machine)

    return counted


_OWN = {"SETITEM": _Machine.set_item, "SETITEMS": _Machine.set_items, "BUILD": _Machine.build}
_Machine.dispatch = {
    (code := ord(one.code)): _instruction(one.name, _OWN.get(one.name) or _Machine.dispatch[code])
    for one in pickletools.opcodes
}


def _of_type(kind: type, value: Any) -> Any:
    if not isinstance(value, kind):
        raise RefusedPickleError(f"its pickle is damaged (a {type(value).__name__} where a {kind.__name__} should be)")
    return value


def _set(target: Any, values: list[Any]) -> None:
    for key, value in zip(values[::2], values[1::2], strict=True):
        # the hash of nested tuples that share parts takes exponential time
        if not isinstance(key, str | int):
            raise RefusedPickleError(f"its pickle has a {type(key).__name__} as a key of a dictionary")
        _of_type(dict, target)[key] = value


def _ordered_dict(*arguments: Any) -> dict[Any, Any]:
    made: dict[Any, Any] = {}
    for pair in _of_type(list, arguments[0]) if arguments else []:
        key, value = pair
        _set(made, [key, value])
    return made


def _rebuilt_tensor(*arguments: Any) -> PickledTensor:
    storage, offset, shape, strides = arguments[:REBUILD_ARGUMENTS]
    numbers = (offset, *_of_type(tuple, shape), *_of_type(tuple, strides))
    if not all(isinstance(number, int) and number >= 0 for number in numbers):
        raise RefusedPickleError("its pickle has a tensor with a negative size")
    if len(shape) != len(strides) or len(shape) > MAX_DIMENSIONS:
        raise RefusedPickleError("its pickle has a tensor whose sizes and strides do not agree")
    return PickledTensor(_of_type(Storage, storage), offset, shape, strides)


def _rebuilt_parameter(*arguments: Any) -> PickledTensor:
    return _of_type(PickledTensor, arguments[0])


_CALLS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered_dict,
    "torch._utils._rebuild_tensor": _rebuilt_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuilt_tensor,
    "torch._utils._rebuild_parameter": _rebuilt_parameter,
}

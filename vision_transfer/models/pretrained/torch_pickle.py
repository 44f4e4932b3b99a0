"""Pickles of PyTorch's state dicts, interpreted without running anything that is in them.

A pickle is a program for a small stack machine whose instructions can import and call whatever they name. This
interpreter has only the instructions that `torch.save` writes for dictionaries, lists, texts, numbers and tensors, and
a tensor becomes a description of where its values are. torch/_weights_only_unpickler.py has the same idea.
"""

import io
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Never

from vision_transfer.models.pretrained.tensors import printable

# Most instructions in a pickle; a network takes about 40 for each tensor.
MAX_INSTRUCTIONS = 500_000
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
class _Global:
    """A class or function that a pickle names, and what stands in for calling it."""

    name: str
    call: Callable[..., Any]


class _Mark:
    """Where the arguments of an instruction begin on the stack."""


_MARK = _Mark()


def read_pickle(stream: io.BytesIO) -> Any:
    """The object of one pickle: dictionaries, lists, tuples, texts, numbers and `PickledTensor`s.

    The stream then stands behind the pickle.

    Raises:
        ForbiddenPickleError: it asks for a class or a function other than those of tensors; none is imported.
        RefusedPickleError: it is damaged, too long, or has an instruction that no state dict needs.
    """
    machine = _Machine()
    try:
        for number, (instruction, argument, place) in enumerate(pickletools.genops(stream)):
            if number >= MAX_INSTRUCTIONS:
                raise RefusedPickleError(f"its pickle has more than {MAX_INSTRUCTIONS:,} instructions")
            if instruction.name == "STOP":
                return machine.pop()
            machine.run(instruction.name, argument, place or 0)
    except (ValueError, IndexError, KeyError, TypeError, UnicodeError, OverflowError) as error:
        raise RefusedPickleError(f"its pickle is damaged ({printable(str(error))})") from error
    raise RefusedPickleError("its pickle has no end")


class _Machine:
    """Stack and memo of a pickle that is being interpreted."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise RefusedPickleError("its pickle is damaged (a mark where a value should be)")
        return value

    def pop_to_mark(self) -> list[Any]:
        place = len(self.stack) - 1
        while self.stack[place] is not _MARK:
            place -= 1
            if place < 0:
                raise RefusedPickleError("its pickle is damaged (no mark)")
        values = self.stack[place + 1 :]
        del self.stack[place:]
        return values

    def run(self, name: str, argument: Any, place: int) -> None:  # noqa: C901 (one case for each instruction)
        """Runs one instruction."""
        match name:
            case "PROTO" | "FRAME":
                pass
            case "MARK":
                self.stack.append(_MARK)
            case "NONE":
                self.stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                self.stack.append(name == "NEWTRUE")
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE" | "SHORT_BINUNICODE":
                self.stack.append(argument)
            case "EMPTY_TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3":
                length = int(name[5:]) if name != "EMPTY_TUPLE" else 0
                values = [self.pop() for _ in range(length)]
                self.stack.append(tuple(reversed(values)))
            case "TUPLE":
                self.stack.append(tuple(self.pop_to_mark()))
            case "EMPTY_LIST":
                self.stack.append([])
            case "APPEND":
                value = self.pop()
                _of_type(list, self.stack[-1]).append(value)
            case "APPENDS":
                values = self.pop_to_mark()
                _of_type(list, self.stack[-1]).extend(values)
            case "EMPTY_DICT":
                self.stack.append({})
            case "SETITEM":
                value, key = self.pop(), self.pop()
                _set(self.stack[-1], [key, value])
            case "SETITEMS":
                values = self.pop_to_mark()
                _set(self.stack[-1], values)
            case "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = self.stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = self.stack[-1]
            case "BINGET" | "LONG_BINGET":
                self.stack.append(self.memo[argument])
            case "GLOBAL":
                self.stack.append(_find(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                attribute, module = self.pop(), self.pop()
                self.stack.append(_find(_of_type(str, module), _of_type(str, attribute)))
            case "REDUCE":
                arguments, function = self.pop(), self.pop()
                self.stack.append(_of_type(_Global, function).call(*_of_type(tuple, arguments)))
            case "BUILD":
                # attributes of an OrderedDict, such as PyTorch's versions of modules
                self.pop()
                _of_type(dict, self.stack[-1])
            case "BINPERSID":
                self.stack.append(_storage(self.pop()))
            case _:
                raise RefusedPickleError(f"its pickle has the instruction {name} at byte {place:,}, of no state dict")


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


def _find(module: str, attribute: str) -> _Global:
    name = f"{module}.{attribute}"
    if module == "torch" and attribute in STORAGE_DTYPES:
        return _Global(attribute, _no_call)
    if name not in _CALLS:
        raise ForbiddenPickleError(printable(name))
    return _Global(name, _CALLS[name])


def _no_call(*_: Any) -> Never:
    raise RefusedPickleError("its pickle makes a storage by itself")


def _storage(identity: Any) -> Storage:
    match identity:
        case ("storage", _Global(name=kind), str(key), str(_), int(count), *view) if (
            kind in STORAGE_DTYPES and len(identity) in PERSISTENT_ID_LENGTHS and count >= 0
        ):
            if any(part is not None for part in view):
                raise RefusedPickleError("it has views of storages, which PyTorch wrote before version 0.4")
            return Storage(STORAGE_DTYPES[kind], key, count)
        case _:
            raise RefusedPickleError("its pickle has values that are no storage of PyTorch's")


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

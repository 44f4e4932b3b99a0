"""A program that lists the data sets of HDF5 files, and sends their values.

One changed byte of a file can lead the HDF5 library into a loop that allocates memory without end (a list of free space
whose next entry is itself), in C code that Python's signals do not interrupt. So files are read in a process that can
be ended, with bounded memory. This file imports nothing from the package, to start quickly.

It answers each line of its input, the JSON of a path and of the name of a data set or null, by a line of JSON with the
number of bytes that follow it, or an error. The bytes are the JSON of a listing, or values: float32 in C order.
"""

import contextlib
import itertools
import json
import math
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Deepest nesting; a Keras model in a model has about 6.
MAX_DEPTH = 12
# Most groups and data sets; VGG19's whole model with its optimizer has about 300.
MAX_OBJECTS = 20_000
# Longest name of a group or data set; longer ones are ignored.
MAX_NAME_LENGTH = 200
# Address space: the libraries take 110 MB of it for any file; beyond, it is for the tensors of a large file.
LEAST_MEMORY, MEMORY_PER_BYTE = 1 << 29, 4
# h5py raises any of these for a damaged file.
DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, OverflowError, MemoryError)


def list_datasets(path: str) -> list[dict[str, Any]]:
    """The data sets of an HDF5 file, found by hard links only.

    Returns:
        For each: `groups` and `name`, `layer` (Keras 3: the attribute `name` of a group `vars` around it, or None),
        `place` (in the order that the attributes `layer_names` and `weight_names` of older versions give, or 0),
        `shape`, `dtype`, and `unreadable` (why its values cannot be read, or an empty text).
    """
    import h5py

    with h5py.File(path, "r") as file:
        return list(itertools.islice(_walk(file), MAX_OBJECTS))


def _walk(file: Any) -> Iterator[dict[str, Any]]:
    import h5py

    budget = MAX_OBJECTS
    waiting: deque[tuple[list[str], Any]] = deque([([], file)])
    places: dict[tuple[str, ...], int] = {}
    while waiting:
        groups, group = waiting.popleft()
        layer = _layer_name(group) if groups and groups[-1] == "vars" else None
        _note_places(group, groups, places)
        for name in itertools.islice(group, budget):
            budget -= 1
            if len(name) > MAX_NAME_LENGTH or not isinstance(group.get(name, getlink=True), h5py.HardLink):
                continue
            child = group[name]
            place = places.setdefault((*groups, name), places.get(tuple(groups), 0))
            if isinstance(child, h5py.Dataset):
                shape, dtype = list(child.shape or ()), _dtype(child)
                found = {"shape": shape, "dtype": dtype, "unreadable": _unreadable(child)}
                yield {"groups": groups, "name": name, "layer": layer, "place": place} | found
            elif isinstance(child, h5py.Group) and len(groups) < MAX_DEPTH:
                waiting.append(([*groups, name], child))


def _note_places(group: Any, groups: list[str], places: dict[tuple[str, ...], int]) -> None:
    """Notes the order that a group's attributes give: of its layers, MAX_OBJECTS apart, or of a layer's tensors."""
    first = places.get(tuple(groups), 0)
    for attribute, distance in (("layer_names", MAX_OBJECTS), ("weight_names", 1)):
        for rank, name in enumerate(_names_in(group, attribute)):
            places[(*groups, *name.split("/"))] = first + distance * rank


def _names_in(group: Any, attribute: str) -> list[str]:
    """The texts in an attribute, which Keras divides into numbered ones where they are too long for HDF5."""
    numbered = itertools.takewhile(lambda name: name in group.attrs, (f"{attribute}{i}" for i in range(MAX_OBJECTS)))
    found: list[str] = []
    for part in [attribute] if attribute in group.attrs else numbered:
        shape = group.attrs.get_id(part).shape
        if len(shape) == 1 and len(found) + shape[0] <= MAX_OBJECTS:
            texts = [text.decode(errors="replace") if isinstance(text, bytes) else text for text in group.attrs[part]]
            found += [text for text in texts if isinstance(text, str)]
    return found


def _layer_name(group: Any) -> str | None:
    if "name" not in group.attrs or group.attrs.get_id("name").shape != ():
        return None
    name = group.attrs["name"]
    return name if isinstance(name, str) and len(name) <= MAX_NAME_LENGTH else None


def _unreadable(dataset: Any) -> str:
    import h5py

    layout = dataset.id.get_create_plist().get_layout()
    if dataset.external:
        return "stored in another file"
    if layout == h5py.h5d.VIRTUAL:
        return "stored in pieces of other files"
    if layout == h5py.h5d.CHUNKED:
        wanted = math.prod(-(-length // step) for length, step in zip(dataset.shape, dataset.chunks, strict=True))
        return "" if dataset.id.get_num_chunks() == wanted else "without some of its pieces"
    return "" if dataset.id.get_storage_size() else "without values"


def _dtype(dataset: Any) -> str:
    # h5py writes bfloat16, which HDF5 does not have, as two opaque bytes
    opaque = dataset.dtype.str == "|V2" and dataset.dtype.names is None
    return "bfloat16" if opaque else dataset.dtype.name


def read_values(path: str, name: str) -> Any:
    """The values of a data set of floating-point numbers as an array of float32."""
    import h5py
    import numpy as np

    with h5py.File(path, "r") as file:
        dataset: Any = file[name]
        if _dtype(dataset) == "bfloat16":
            return (dataset[()].view("<u2").astype("<u4") << 16).view("<f4")
        return np.ascontiguousarray(dataset.astype("<f4")[()])


def _limit_memory(path: str) -> None:
    # Windows has no such limits, and macOS refuses this one
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        most = LEAST_MEMORY + MEMORY_PER_BYTE * Path(path).stat().st_size
        resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))


def main() -> None:
    """Answers requests until there are no more."""
    for line in sys.stdin.buffer:
        path, name = json.loads(line)
        _limit_memory(path)
        try:
            content = json.dumps(list_datasets(path)).encode() if name is None else read_values(path, name).data
            answer = {"bytes": memoryview(content).nbytes}
        except DAMAGE as error:
            content, answer = b"", {"error": str(error)}
        sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()

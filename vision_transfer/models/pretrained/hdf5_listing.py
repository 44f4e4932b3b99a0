"""A program that lists the data sets of an HDF5 file as JSON: names, shapes, types and offsets.

Run as `python hdf5_listing.py FILE`. One changed byte of a file can lead the HDF5 library into a loop that allocates
memory without end (a list of free space whose next entry is itself), in C code that Python's signals do not interrupt.
So files are examined in a process that can be ended, with bounded memory, and the caller itself reads the values at the
offsets that are listed here. This file imports nothing from the package, to start quickly.
"""

import contextlib
import itertools
import json
import sys
from collections import deque
from collections.abc import Iterator
from typing import Any

# Deepest nesting; a Keras model in a model has about 6.
MAX_DEPTH = 12
# Most groups and data sets; VGG19's whole model with its optimizer has about 300.
MAX_OBJECTS = 20_000
# Longest name of a group or data set; longer ones are ignored.
MAX_NAME_LENGTH = 200
# Address space of the listing; the libraries take 110 MB of it for any file.
MAX_MEMORY = 1 << 30
# h5py raises any of these for a damaged file.
DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, OverflowError, MemoryError)


def list_datasets(path: str) -> list[dict[str, Any]]:
    """The data sets of an HDF5 file, found by hard links only.

    Returns:
        For each: `groups` and `name`, `layer` (Keras 3: the attribute `name` of a group `vars` around it, or None),
        `shape`, `dtype` (`float32` only if little-endian IEEE), `offset` (bytes from the start of the file to its
        values in C order, or None), `unreadable` (why the offset is None, or an empty text).
    """
    import h5py

    with h5py.File(path, "r") as file:
        return list(itertools.islice(_walk(file), MAX_OBJECTS))


def _walk(file: Any) -> Iterator[dict[str, Any]]:
    import h5py

    budget = MAX_OBJECTS
    waiting: deque[tuple[list[str], Any]] = deque([([], file)])
    while waiting:
        groups, group = waiting.popleft()
        layer = _layer_name(group) if groups and groups[-1] == "vars" else None
        for name in itertools.islice(group, budget):
            budget -= 1
            if len(name) > MAX_NAME_LENGTH or not isinstance(group.get(name, getlink=True), h5py.HardLink):
                continue
            child = group[name]
            if isinstance(child, h5py.Dataset):
                yield {"groups": groups, "name": name, "layer": layer} | _description(child)
            elif isinstance(child, h5py.Group) and len(groups) < MAX_DEPTH:
                waiting.append(([*groups, name], child))


def _layer_name(group: Any) -> str | None:
    if "name" not in group.attrs or group.attrs.get_id("name").shape != ():
        return None
    name = group.attrs["name"]
    return name if isinstance(name, str) and len(name) <= MAX_NAME_LENGTH else None


def _description(dataset: Any) -> dict[str, Any]:
    import h5py

    properties = dataset.id.get_create_plist()
    offset = None
    if properties.get_external_count() > 0:
        unreadable = "stored in another file"
    elif properties.get_layout() != h5py.h5d.CONTIGUOUS:
        unreadable = "stored in pieces or compressed"
    else:
        offset = dataset.id.get_offset()
        unreadable = "" if offset is not None else "without values"
    little_endian = h5py.h5t.IEEE_F32LE.equal(dataset.id.get_type())
    return {
        "shape": list(dataset.shape or ()),
        "dtype": "float32" if little_endian else f"{dataset.dtype} ({dataset.dtype.str})",
        "offset": offset,
        "unreadable": unreadable,
    }


def _limit_memory() -> None:
    # Windows has no such limits, and macOS refuses this one
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))


def main(path: str) -> int:
    """Prints the listing and returns 0, or prints an error to stderr and returns 1."""
    _limit_memory()
    try:
        datasets = list_datasets(path)
    except DAMAGE as error:
        print(ascii(str(error)), file=sys.stderr)
        return 1
    json.dump(datasets, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

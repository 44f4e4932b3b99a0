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
# Most pieces of all compressed data sets together; VGG16's whole model has about 9,000.
MAX_PIECES = 100_000
# HDF5's numbers of the filters that can be undone (H5Zpublic.h).
FILTERS = {1: "deflate", 2: "shuffle"}
# h5py raises any of these for a damaged file.
DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, OverflowError, MemoryError)


def list_datasets(path: str) -> list[dict[str, Any]]:
    """The data sets of an HDF5 file, found by hard links only.

    Returns:
        For each: `groups` and `name`, `layer` (Keras 3: the attribute `name` of a group `vars` around it, or None),
        `place` (in the order that the attributes `layer_names` and `weight_names` of older versions give, or 0),
        `shape`, `dtype` (`float32` and `float16` only if little-endian IEEE), `offset` (bytes from the start of the
        file to its values in C order, or None), `pieces` (None, or `shape`, `filters` in the order in which they were
        applied, and for each `place`: its offset and length in the file, its mask of omitted filters, and the indices
        of its first element), `unreadable` (why it has neither offset nor pieces, or an empty text).
    """
    import h5py

    with h5py.File(path, "r") as file:
        return list(itertools.islice(_walk(file), MAX_OBJECTS))


def _walk(file: Any) -> Iterator[dict[str, Any]]:
    import h5py

    budget = MAX_OBJECTS
    pieces_left = MAX_PIECES
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
                description = _description(child, pieces_left)
                pieces_left -= len(description["pieces"]["places"]) if description["pieces"] else 0
                yield {"groups": groups, "name": name, "layer": layer, "place": place} | description
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


def _description(dataset: Any, most_pieces: int) -> dict[str, Any]:
    import h5py

    properties = dataset.id.get_create_plist()
    offset = pieces = None
    if properties.get_external_count() > 0:
        unreadable = "stored in another file"
    elif properties.get_layout() == h5py.h5d.CHUNKED:
        pieces, unreadable = _pieces(dataset, properties, most_pieces)
    elif properties.get_layout() != h5py.h5d.CONTIGUOUS:
        unreadable = "stored in pieces of other files or in the header"
    else:
        offset = dataset.id.get_offset()
        unreadable = "" if offset is not None else "without values"
    return {
        "shape": list(dataset.shape or ()),
        "dtype": _dtype(dataset),
        "offset": offset,
        "pieces": pieces,
        "unreadable": unreadable,
    }


def _pieces(dataset: Any, properties: Any, most: int) -> tuple[dict[str, Any] | None, str]:
    """The pieces of a data set that has them, or why they cannot be read."""
    codes = [properties.get_filter(index)[0] for index in range(properties.get_nfilters())]
    if not set(codes) <= set(FILTERS):
        return None, f"compressed by HDF5's filter {next(code for code in codes if code not in FILTERS)}"
    count = dataset.id.get_num_chunks()
    if count > most:
        return None, f"stored in {count:,} pieces"
    places: list[list[int]] = []
    dataset.id.chunk_iter(
        lambda piece: places.append([piece.byte_offset, piece.size, piece.filter_mask, *piece.chunk_offset])
    )
    return {"shape": list(dataset.chunks), "filters": [FILTERS[code] for code in codes], "places": places}, ""


def _dtype(dataset: Any) -> str:
    import h5py

    kind = dataset.id.get_type()
    if h5py.h5t.IEEE_F32LE.equal(kind):
        return "float32"
    if h5py.h5t.IEEE_F16LE.equal(kind):
        return "float16"
    # h5py writes bfloat16, which HDF5 does not have, as two opaque bytes
    opaque = dataset.dtype.str == "|V2" and dataset.dtype.names is None
    return "bfloat16" if opaque else f"{dataset.dtype} ({dataset.dtype.str})"


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

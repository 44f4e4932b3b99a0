"""The cache of decoded images: a data set is decoded once for each form, and then read row by row.

`CACHE/decoded/KEY/data/` contains `manifest.json` and, for each split, `images.npy`, `labels.npy` and `digests.npy`.
KEY is a digest of everything that determines the pixels. The folder is written under a lock, gets its name last, and is
verified whenever it is opened: each image against its digest (unless `images.npy` has the stamp with which it was
verified, `runtime/stamps.py`), everything else against the manifest, and the manifest against its own digest.

With `dataset.decode=stream` there is the same in `CACHE/decoded/KEY/index/` but `images.npy`: what one pass over the
images tells, so that later only those that are used have to be decoded (`stream.py`).
"""

import errno
import io
import json
import math
import shutil
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8
from rich.filesize import decimal

from vision_transfer.config.schema import Decode
from vision_transfer.data.dataset import DIGEST_BYTES, Skipped, Split, digest, digest_image, stack_digests
from vision_transfer.data.doubts import without_contrast
from vision_transfer.data.images.decode import UndecodableError, decoder_version
from vision_transfer.data.images.parallel import map_in_order
from vision_transfer.data.images.resize import Form, resize
from vision_transfer.data.images.stream import DecodedRows
from vision_transfer.data.rows import OpenFile, StoredRows
from vision_transfer.data.source import Examples, Source, fingerprint
from vision_transfer.errors import UserError
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.files import (
    DAMAGE,
    new_folder,
    read_json,
    remove,
    replaced_file,
    shared_folder,
    write_json,
)
from vision_transfer.runtime.stamps import FOLDER as STAMPS_FOLDER
from vision_transfer.runtime.stamps import known_digests

FOLDER = "decoded"
# Of a data set: with its pixels, and without.
PARTS: Mapping[Decode, str] = {"cache": "data", "stream": "index"}
LAYOUT_VERSION = 2
# Bytes of images that a thread reads at a time to verify them.
_VERIFIED_BYTES = 1 << 20
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_STREAM = "--config.dataset.decode=stream decodes images each time they are used, and keeps none"

# The splits by name, and the files left out.
Decoded = tuple[dict[str, Split], tuple[Skipped, ...]]
# The index of an example, its pixels and their digest.
Image = tuple[int, UInt8[np.ndarray, "size size channels"], bytes]


class CacheDamagedError(Exception):
    """A cached data set was changed after it was written."""


def load_images(source: Source, form: Form, cache_dir: Path, screen: Screen, decode: Decode = "cache") -> Decoded:
    """The decoded splits of a source: from the cache, or decoded and written to it; small sources stay in memory.

    With `decode` `stream` the cache gets all but the pixels; images are decoded when their rows are taken.

    Raises:
        UserError: the cache folder cannot be written, or the disk is full.
    """
    if source.in_memory:
        return _decode_in_memory(source, form, screen)
    key = cache_key(source, form)
    store, stamps = cache_dir / FOLDER / key, cache_dir / STAMPS_FOLDER / key
    try:
        with shared_folder(store, f"decoding {source.name}", screen):
            return _open_or_build(store / PARTS[decode], stamps, source, form, screen, decode)
    except OSError as error:
        stream = f" {_STREAM}." if decode == "cache" and error.errno in _NO_SPACE else ""
        raise UserError(
            f"the cache folder {cache_dir} cannot be used: {error.strerror or error}. Free some space there, or name "
            f"another folder in the environment variable VISION_TRANSFER_CACHE.{stream}"
        ) from error


def kept_bytes(file: Path, size: int | None, make: Callable[[], bytes]) -> bytes:
    """The content of a file of the cache, which begins with its digest; made and written if it is not there or damaged.

    It has `size` bytes without the digest, if that is known.
    """
    try:
        written = file.read_bytes()
    except DAMAGE:
        written = b""
    content = written[DIGEST_BYTES:]
    if len(content) != (len(content) if size is None else size) or written[:DIGEST_BYTES] != digest(content):
        content = make()
        if file.is_dir():
            remove(file)
        with replaced_file(file) as temporary:
            temporary.write_bytes(digest(content) + content)
    return content


def kept_mask(file: Path, count: int, make: Callable[[], Bool[np.ndarray, "count"]]) -> Bool[np.ndarray, "count"]:
    """`kept_bytes` of a mask, a bit for each of `count` items."""
    kept = kept_bytes(file, -(-count // 8), lambda: np.packbits(make()).tobytes())
    return np.unpackbits(np.frombuffer(kept, np.uint8), count=count).astype(bool)


def cache_key(source: Source, form: Form) -> str:
    """Digest of everything that determines the decoded pixels."""
    version = {"decoder": decoder_version(), "layout": LAYOUT_VERSION}
    parts = {"source": fingerprint(source), "form": asdict(form), **version}
    return _hex_digest(json.dumps(parts, sort_keys=True).encode())


def _decode_in_memory(source: Source, form: Form, screen: Screen) -> Decoded:
    splits, skipped = {}, []
    for split, examples in source.splits.items():
        results = list(_decode(examples, form, screen, f"Preparing {split}"))
        skipped += [result for result in results if isinstance(result, Skipped)]
        images = [result for result in results if not isinstance(result, Skipped)]
        pixels = np.array([pixels for _, pixels, _ in images], np.uint8)
        decoded = examples.take(np.array([index for index, _, _ in images], np.int64))
        splits[split] = Split(
            pixels.reshape(-1, form.size, form.size, form.channels),
            decoded.labels,
            decoded.files,
            stack_digests([image_digest for _, _, image_digest in images]),
            groups=decoded.groups,
        )
    return splits, tuple(skipped)


def _decode(examples: Examples, form: Form, screen: Screen, title: str) -> Generator[Image | Skipped]:
    """Decodes and resizes examples on all cores, in their order; one that cannot be decoded gives a `Skipped`."""

    def decode(index: int) -> Image | Skipped:
        try:
            pixels = resize(examples.pixels(index, form.channels), form.size, form.resampling)
        except UndecodableError as reason:
            return Skipped(examples.files[index], str(reason))
        return index, pixels, digest_image(pixels)

    yield from map_in_order(decode, range(len(examples.files)), screen=screen, title=title)


def _open_or_build(folder: Path, stamps: Path, source: Source, form: Form, screen: Screen, decode: Decode) -> Decoded:
    if folder.exists():
        try:
            return _open(folder, stamps, source, form, screen, decode)
        except (CacheDamagedError, *DAMAGE) as damage:
            screen.say(f"The cached images of {source.name} are damaged ({damage}); they are decoded again.")
            remove(folder)
    if decode == "cache":
        _check_free_space(folder.parent, source, form)
    with new_folder(folder) as temporary:
        _build(temporary, source, form, screen, decode)
    return _open(folder, stamps, source, form, screen, decode)


def _check_free_space(folder: Path, source: Source, form: Form) -> None:
    """Raises UserError if the disk has no room for the images, before hours are spent on decoding them."""
    count, free = sum(len(examples.files) for examples in source.splits.values()), shutil.disk_usage(folder).free
    needed = count * form.size**2 * form.channels
    if needed > free:
        raise UserError(
            f"{source.name}: {count:,} decoded images of {form.size}x{form.size} need {decimal(needed)}, and "
            f"{decimal(free)} are free in {folder.parent}. {_STREAM}; or free some space (--mode=cache lists what the "
            "cache holds, --prune=… removes from it), or name another cache folder in VISION_TRANSFER_CACHE."
        )


def _build(folder: Path, source: Source, form: Form, screen: Screen, decode: Decode) -> None:
    content = {"splits": {}, "skipped": []}
    for split, examples in source.splits.items():
        (folder / split).mkdir()
        title = f"Decoding {split} at {form.size}x{form.size}"
        entry, skipped = _write_split(folder / split, examples, form, screen, title, decode)
        content["skipped"] += [asdict(item) for item in skipped]
        content["splits"][split] = entry
    write_json(folder / "manifest.json", {"digest": _manifest_digest(content), "content": content})


def _write_split(
    folder: Path, examples: Examples, form: Form, screen: Screen, title: str, decode: Decode
) -> tuple[dict[str, Any], list[Skipped]]:
    """Decodes a split into `images.npy`, `labels.npy` and `digests.npy`; returns its manifest, and files left out.

    The pixels are written sequentially and not through a memory map, which would kill the process on a full disk. For
    a stream they are only looked at.
    """
    indices: list[int] = []
    digests: list[bytes] = []
    flat: list[bool] = []
    skipped: list[Skipped] = []
    shape = (form.size, form.size, form.channels)
    opened = (folder / "images.npy").open("wb") if decode == "cache" else nullcontext()
    with opened as file, closing(_decode(examples, form, screen, title)) as results:
        if file is not None:
            file.write(_header((len(examples.files), *shape)))
        for result in results:
            if isinstance(result, Skipped):
                skipped.append(result)
                continue
            index, pixels, image_digest = result
            if file is None:
                flat.append(bool(without_contrast(pixels[None])[0]))
            else:
                file.write(np.ascontiguousarray(pixels).data)
            indices.append(index)
            digests.append(image_digest)
        if file is not None:
            file.seek(0)
            file.write(_header((len(indices), *shape)))
    np.save(folder / "labels.npy", examples.labels[indices])
    np.save(folder / "digests.npy", stack_digests(digests))
    entry = {
        "left_out": np.delete(np.arange(len(examples.files)), indices).tolist(),
        "shape": [len(indices), *shape],
        "digests": {name: _hex_digest((folder / name).read_bytes()) for name in ("labels.npy", "digests.npy")},
    }
    return entry if decode == "cache" else entry | {"without_contrast": np.flatnonzero(flat).tolist()}, skipped


def _header(shape: tuple[int, ...]) -> bytes:
    """The header of an .npy file of unsigned bytes; its length does not depend on the first dimension."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return header.getvalue()


def _open(folder: Path, stamps: Path, source: Source, form: Form, screen: Screen, decode: Decode) -> Decoded:
    content = _read_manifest(folder / "manifest.json")
    skipped = tuple(Skipped(**item) for item in content["skipped"])
    splits: dict[str, Split] = {}
    for name, entry in content["splits"].items():
        labels, digests = (_open_array(folder / name / file, entry) for file in ("labels.npy", "digests.npy"))
        examples = source.splits[name].without(entry["left_out"])
        if decode == "cache":
            images, flat = _open_images(folder / name, entry, digests, stamps, screen), None
        else:
            images = DecodedRows(examples, form, digests)
            flat = np.isin(np.arange(len(digests)), entry["without_contrast"])
        splits[name] = Split(images, labels, examples.files, digests, flat, examples.groups)
    return splits, skipped


def _read_manifest(path: Path) -> Mapping:
    try:
        manifest = read_json(path)
        if manifest["digest"] == _manifest_digest(manifest["content"]):
            return manifest["content"]
    except (ValueError, KeyError, TypeError):
        pass
    raise CacheDamagedError(f"{path.name} was changed")


def _open_array(file: Path, entry: Mapping) -> np.ndarray:
    content = file.read_bytes()
    if _hex_digest(content) != entry["digests"][file.name]:
        raise _damaged(file)
    return np.load(io.BytesIO(content), allow_pickle=False)


def _open_images(folder: Path, entry: Mapping, digests: np.ndarray, stamps: Path, screen: Screen) -> StoredRows:
    file, shape = folder / "images.npy", tuple(entry["shape"])
    # Compared and not parsed: NumPy's parser may raise anything on a damaged header.
    header = _header(shape)
    with file.open("rb") as opened:
        intact = opened.read(len(header)) == header
    if not intact or file.stat().st_size != len(header) + math.prod(shape):
        raise _damaged(file)
    images = StoredRows(file, len(header), shape, np.dtype(np.uint8), OpenFile(file))
    # What is known of the file is which digests its images were compared with.
    compared_with = bytes.fromhex(entry["digests"]["digests.npy"])

    def verify(_: Sequence[int]) -> Iterator[bytes]:
        _verify(images, digests, f"{folder.name}/{file.name}", screen)
        yield compared_with

    own_stamps = stamps.with_name(f"{stamps.name}-{folder.name}")
    if known_digests(own_stamps, [("", [str(file)])], verify, DIGEST_BYTES)[0].tobytes() != compared_with:
        raise _damaged(file)
    return images


def _damaged(file: Path) -> CacheDamagedError:
    return CacheDamagedError(f"{file.parent.name}/{file.name} was changed")


def _verify(images: StoredRows, digests: np.ndarray, name: str, screen: Screen) -> None:
    """Compares every image with its digest."""
    at_a_time = max(1, _VERIFIED_BYTES // max(1, images.row_bytes))

    def changed(first: int) -> list[int]:
        some = images[first : first + at_a_time]
        return [first + row for row, image in enumerate(some) if digest_image(image) != digests[first + row].tobytes()]

    firsts, title = range(0, len(images), at_a_time), "Verifying cached images"
    with closing(map_in_order(changed, firsts, screen=screen, title=title, unit="blocks")) as found:
        for rows in found:
            if rows:
                raise CacheDamagedError(f"image {rows[0]} of {name} was changed")


def _manifest_digest(content: Mapping) -> str:
    return _hex_digest(json.dumps(content, sort_keys=True).encode())


def _hex_digest(content: bytes) -> str:
    return digest(content).hex()

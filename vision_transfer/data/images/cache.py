"""The cache of decoded images: a data set is decoded once for each form, and then read row by row.

`CACHE/decoded/KEY/data/` contains `manifest.json` and, for each split, `images.npy`, `labels.npy` and `digests.npy`.
KEY is a digest of everything that determines the pixels. The folder is written under a lock, gets its name last, and is
verified whenever it is opened: each image against its digest (unless `images.npy` has the stamp with which it was
verified, `runtime/stamps.py`), everything else against the manifest, and the manifest against its own digest.
"""

import io
import json
import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from vision_transfer.data.dataset import DIGEST_BYTES, Skipped, Split, digest, digest_image, stack_digests
from vision_transfer.data.images.decode import UndecodableError, decoder_version
from vision_transfer.data.images.parallel import map_in_order
from vision_transfer.data.images.resize import Form, resize
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
LAYOUT_VERSION = 1
# Bytes of images that a thread reads at a time to verify them.
_VERIFIED_BYTES = 1 << 20


# The splits by name, and the files left out.
Decoded = tuple[dict[str, Split], tuple[Skipped, ...]]
# The index of an example, its pixels and their digest.
Image = tuple[int, UInt8[np.ndarray, "size size channels"], bytes]


class CacheDamagedError(Exception):
    """A cached data set was changed after it was written."""


def load_images(source: Source, form: Form, cache_dir: Path, screen: Screen) -> Decoded:
    """The decoded splits of a source: from the cache, or decoded and written to it; small sources stay in memory.

    Raises:
        UserError: the cache folder cannot be written, or the disk is full.
    """
    if source.in_memory:
        return _decode_in_memory(source, form, screen)
    key = cache_key(source, form)
    store, stamps = cache_dir / FOLDER / key, cache_dir / STAMPS_FOLDER / key
    try:
        with shared_folder(store, f"decoding {source.name}", screen):
            return _open_or_build(store / "data", stamps, source, form, screen)
    except OSError as error:
        raise UserError(
            f"the cache folder {cache_dir} cannot be used: {error.strerror or error}. Free some space there, or name "
            "another folder in the environment variable VISION_TRANSFER_CACHE."
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
        splits[split] = Split(
            pixels.reshape(-1, form.size, form.size, form.channels),
            examples.labels[[index for index, _, _ in images]],
            tuple(examples.files[index] for index, _, _ in images),
            stack_digests([image_digest for _, _, image_digest in images]),
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


def _open_or_build(folder: Path, stamps: Path, source: Source, form: Form, screen: Screen) -> Decoded:
    if folder.exists():
        try:
            return _open(folder, stamps, screen)
        except (CacheDamagedError, *DAMAGE) as damage:
            screen.say(f"The cached images of {source.name} are damaged ({damage}); they are decoded again.")
            remove(folder)
    with new_folder(folder) as temporary:
        _build(temporary, source, form, screen)
    return _open(folder, stamps, screen)


def _build(folder: Path, source: Source, form: Form, screen: Screen) -> None:
    content = {"splits": {}, "skipped": []}
    for split, examples in source.splits.items():
        (folder / split).mkdir()
        title = f"Decoding {split} at {form.size}x{form.size}"
        files, skipped = _write_split(folder / split, examples, form, screen, title)
        content["skipped"] += [asdict(item) for item in skipped]
        content["splits"][split] = {
            "files": files,
            "shape": [len(files), form.size, form.size, form.channels],
            "digests": {
                name: _hex_digest((folder / split / name).read_bytes()) for name in ("labels.npy", "digests.npy")
            },
        }
    write_json(folder / "manifest.json", {"digest": _manifest_digest(content), "content": content})


def _write_split(
    folder: Path, examples: Examples, form: Form, screen: Screen, title: str
) -> tuple[list[str], list[Skipped]]:
    """Decodes a split into `images.npy`, `labels.npy` and `digests.npy`; returns the names of its images and the rest.

    The pixels are written sequentially and not through a memory map, which would kill the process on a full disk.
    """
    indices: list[int] = []
    digests: list[bytes] = []
    skipped: list[Skipped] = []
    with (folder / "images.npy").open("wb") as file:
        file.write(_header((len(examples.files), form.size, form.size, form.channels)))
        with closing(_decode(examples, form, screen, title)) as results:
            for result in results:
                if isinstance(result, Skipped):
                    skipped.append(result)
                    continue
                index, pixels, image_digest = result
                file.write(np.ascontiguousarray(pixels).data)
                indices.append(index)
                digests.append(image_digest)
        file.seek(0)
        file.write(_header((len(indices), form.size, form.size, form.channels)))
    np.save(folder / "labels.npy", examples.labels[indices])
    np.save(folder / "digests.npy", stack_digests(digests))
    return [examples.files[index] for index in indices], skipped


def _header(shape: tuple[int, ...]) -> bytes:
    """The header of an .npy file of unsigned bytes; its length does not depend on the first dimension."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return header.getvalue()


def _open(folder: Path, stamps: Path, screen: Screen) -> Decoded:
    content = _read_manifest(folder / "manifest.json")
    entries = content["splits"].items()
    splits = {split: _open_split(folder / split, entry, stamps, screen) for split, entry in entries}
    return splits, tuple(Skipped(**item) for item in content["skipped"])


def _read_manifest(path: Path) -> Mapping:
    try:
        manifest = read_json(path)
        if manifest["digest"] == _manifest_digest(manifest["content"]):
            return manifest["content"]
    except (ValueError, KeyError, TypeError):
        pass
    raise CacheDamagedError(f"{path.name} was changed")


def _open_split(folder: Path, entry: Mapping, stamps: Path, screen: Screen) -> Split:
    for name, expected in entry["digests"].items():
        if _hex_digest((folder / name).read_bytes()) != expected:
            raise CacheDamagedError(f"{folder.name}/{name} was changed")
    digests = np.load(folder / "digests.npy", allow_pickle=False)
    file = folder / "images.npy"
    images = _open_images(file, tuple(entry["shape"]))
    # What is known of the file is which digests its images were compared with.
    compared_with = bytes.fromhex(entry["digests"]["digests.npy"])

    def verify(_: Sequence[int]) -> Iterator[bytes]:
        _verify(images, digests, f"{folder.name}/images.npy", screen)
        yield compared_with

    own_stamps = stamps.with_name(f"{stamps.name}-{folder.name}")
    if known_digests(own_stamps, [file], verify, DIGEST_BYTES) != [compared_with]:
        raise CacheDamagedError(f"{folder.name}/images.npy was changed")
    return Split(images, np.load(folder / "labels.npy", allow_pickle=False), tuple(entry["files"]), digests)


def _open_images(path: Path, shape: tuple[int, ...]) -> StoredRows:
    # Compared and not parsed: NumPy's parser may raise anything on a damaged header.
    header = _header(shape)
    with path.open("rb") as file:
        intact = file.read(len(header)) == header
    if not intact or path.stat().st_size != len(header) + math.prod(shape):
        raise CacheDamagedError(f"{path.parent.name}/{path.name} was changed")
    return StoredRows(path, len(header), shape, np.dtype(np.uint8), OpenFile(path))


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

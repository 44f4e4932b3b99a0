"""The cache of decoded images: a data set is decoded once for each size, and then read by memory map.

`CACHE/decoded/KEY/data/` holds `manifest.json` and, for each split, `images.npy`, `labels.npy` and `digests.npy`.
KEY is the digest of all that determines the pixels. The folder is written under a lock and named last, and verified
whenever it is opened: every image against its digest, all else against the manifest, and that against its own digest.
"""

import hashlib
import io
import json
import math
import shutil
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from jaxtyping import UInt8
from rich.markup import escape

from vision_transfer.data.dataset import DIGEST_BYTES, Skipped, Split, digest_image
from vision_transfer.data.images.decode import decoder_version
from vision_transfer.data.images.decode_all import Decoded, Form, decode_examples, stack_digests
from vision_transfer.data.images.parallel import map_in_order
from vision_transfer.data.source import Examples, Source, fingerprint
from vision_transfer.errors import UserError
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.files import new_folder, remove_leftovers, write_json

FOLDER = "decoded"
LAYOUT_VERSION = 1
_SECONDS_BEFORE_SAYING_THAT_IT_WAITS = 1.0


class CacheDamagedError(Exception):
    """A cached data set that is not what was written."""


def load_cached(
    source: Source, form: Form, cache_dir: Path, screen: Screen
) -> tuple[dict[str, Split], tuple[Skipped, ...]]:
    """The decoded splits of a source, from the cache or, if it has them not or damaged, decoded into it.

    Raises:
        UserError: the cache folder cannot be written, or the disk is full.
    """
    store = cache_dir / FOLDER / cache_key(source, form)
    lock = FileLock(store.with_suffix(".lock"))
    try:
        store.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=_SECONDS_BEFORE_SAYING_THAT_IT_WAITS)
        except Timeout:
            screen.say(escape(f"Another process is decoding {source.name}; waiting for it."))
            lock.acquire()
        try:
            return _open_or_build(store, source, form, screen)
        finally:
            lock.release()
    except OSError as error:
        raise UserError(
            f"the cache folder {cache_dir} cannot be used: {error.strerror or error}. Free some space there, or name "
            "another folder in the environment variable VISION_TRANSFER_CACHE."
        ) from error


def cache_key(source: Source, form: Form) -> str:
    """Digest of all that determines the decoded pixels."""
    parts = {
        "source": fingerprint(source),
        "form": asdict(form),
        "decoder": decoder_version(),
        "layout": LAYOUT_VERSION,
    }
    return _digest(json.dumps(parts, sort_keys=True).encode())


def _open_or_build(
    store: Path, source: Source, form: Form, screen: Screen
) -> tuple[dict[str, Split], tuple[Skipped, ...]]:
    remove_leftovers(store)
    folder = store / "data"
    if folder.exists():
        try:
            return _open(folder, screen)
        except (CacheDamagedError, OSError) as damage:
            screen.say(escape(f"The cached images of {source.name} are damaged ({damage}); they are decoded again."))
            shutil.rmtree(folder)
    with new_folder(folder) as temporary:
        _build(temporary, source, form, screen)
    return _open(folder, screen)


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
            "digests": {name: _digest((folder / split / name).read_bytes()) for name in ("labels.npy", "digests.npy")},
        }
    write_json(folder / "manifest.json", {"digest": _manifest_digest(content), "content": content})


def _write_split(
    folder: Path, examples: Examples, form: Form, screen: Screen, title: str
) -> tuple[list[str], list[Skipped]]:
    """Decodes a split into `images.npy`, `labels.npy` and `digests.npy`; returns their names and what was left out.

    The pixels are written in sequence and not through a memory map, which on a full disk would kill the process.
    """
    decoded: list[Decoded] = []
    skipped: list[Skipped] = []
    with (folder / "images.npy").open("wb") as file:
        file.write(_header((len(examples.files), form.size, form.size, form.channels)))
        with closing(decode_examples(examples, form, screen=screen, title=title)) as results:
            for result in results:
                if isinstance(result, Skipped):
                    skipped.append(result)
                    continue
                file.write(np.ascontiguousarray(result.image).data)
                # Without its pixels, which are on disk.
                decoded.append(replace(result, image=np.empty((0, 0, form.channels), np.uint8)))
        file.seek(0)
        file.write(_header((len(decoded), form.size, form.size, form.channels)))
    np.save(folder / "labels.npy", examples.labels[[result.index for result in decoded]])
    np.save(folder / "digests.npy", stack_digests([result.digest for result in decoded]))
    return [examples.files[result.index] for result in decoded], skipped


def _header(shape: tuple[int, ...]) -> bytes:
    """The header of an .npy file of unsigned bytes; its length does not depend on the first dimension."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return header.getvalue()


def _open(folder: Path, screen: Screen) -> tuple[dict[str, Split], tuple[Skipped, ...]]:
    content = _read_manifest(folder / "manifest.json")
    splits = {split: _open_split(folder / split, entry, screen) for split, entry in content["splits"].items()}
    return splits, tuple(Skipped(**item) for item in content["skipped"])


def _read_manifest(path: Path) -> Mapping:
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["digest"] == _manifest_digest(manifest["content"]):
            return manifest["content"]
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise CacheDamagedError(f"{path.name} is not as it was written")


def _open_split(folder: Path, entry: Mapping, screen: Screen) -> Split:
    for name, digest in entry["digests"].items():
        if _digest((folder / name).read_bytes()) != digest:
            raise CacheDamagedError(f"{folder.name}/{name} is not as it was written")
    digests = np.load(folder / "digests.npy", allow_pickle=False)
    images = _open_images(folder / "images.npy", tuple(entry["shape"]))
    _verify(images, digests, f"{folder.name}/images.npy", screen)
    return Split(images, np.load(folder / "labels.npy", allow_pickle=False), tuple(entry["files"]), digests)


def _open_images(path: Path, shape: tuple[int, ...]) -> UInt8[np.ndarray, "examples height width channels"]:
    # Compared and not parsed: what NumPy's parser raises on a damaged header is anyone's guess.
    header = _header(shape)
    with path.open("rb") as file:
        intact = file.read(len(header)) == header
    if not intact or path.stat().st_size != len(header) + math.prod(shape):
        raise CacheDamagedError(f"{path.parent.name}/{path.name} is not as it was written")
    if not shape[0]:
        return np.empty(shape, np.uint8)
    return np.memmap(path, np.uint8, mode="r", offset=len(header), shape=shape)


def _verify(images: np.ndarray, digests: np.ndarray, name: str, screen: Screen) -> None:
    """Compares every image with its digest."""

    def found(index: int) -> bytes:
        return digest_image(images[index])

    with closing(map_in_order(found, range(len(images)), screen=screen, title="Verifying cached images")) as computed:
        for index, digest in enumerate(computed):
            if digest != digests[index].tobytes():
                raise CacheDamagedError(f"image {index} of {name} is not as it was written")


def _manifest_digest(content: Mapping) -> str:
    return _digest(json.dumps(content, sort_keys=True).encode())


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).hexdigest()

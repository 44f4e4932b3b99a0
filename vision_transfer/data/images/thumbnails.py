"""Thumbnails of all pictures of a split, made once and kept in the cache."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8

from vision_transfer.data.images.decode import UndecodableError, decoder_version
from vision_transfer.data.images.near_duplicates import SIDE, THUMBNAIL_VERSION, thumbnail
from vision_transfer.data.images.parallel import map_in_order
from vision_transfer.data.source import Examples
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.files import replaced_file

FOLDER = "thumbnails"
DIGEST_BYTES = 16
# A byte that says whether the picture decodes, and its grey pixels.
ROW_BYTES = 1 + SIDE * SIDE
_GREY = 1


@dataclass(frozen=True)
class Thumbnails:
    """A thumbnail of each example, and whether the example decodes (where it does not, the thumbnail is black)."""

    pixels: UInt8[np.ndarray, "examples 32 32"]
    decoded: Bool[np.ndarray, "examples"]


def load_thumbnails(examples: Examples, content: str, cache_dir: Path, screen: Screen) -> Thumbnails:
    """Thumbnails from the cache or, if it has them not or damaged, made and put there.

    Args:
        examples: whose.
        content: digest of all that determines their pixels.
        cache_dir: root of all caches.
        screen: for the progress bar.
    """
    version = f"{content} {THUMBNAIL_VERSION} {decoder_version()}"
    file = cache_dir / FOLDER / hashlib.blake2b(version.encode(), digest_size=DIGEST_BYTES).hexdigest()
    rows = _read(file, len(examples.files))
    if rows is None:
        rows = _make(examples, screen)
        with replaced_file(file) as temporary:
            temporary.write_bytes(_digest(rows) + rows.tobytes())
    return Thumbnails(rows[:, 1:].reshape(-1, SIDE, SIDE), rows[:, 0] > 0)


def _make(examples: Examples, screen: Screen) -> UInt8[np.ndarray, "examples 1025"]:
    """For each example a byte that says whether it decodes, and its thumbnail."""

    def look(index: int) -> np.ndarray:
        row = np.zeros(ROW_BYTES, np.uint8)
        try:
            row[1:] = thumbnail(examples.pixels(index, _GREY)).reshape(-1)
        except UndecodableError:
            return row
        row[0] = 1
        return row

    places = range(len(examples.files))
    rows = map_in_order(look, places, screen=screen, title="Looking for near-duplicates")
    return np.array(list(rows), np.uint8).reshape(len(places), ROW_BYTES)


def _read(file: Path, examples: int) -> UInt8[np.ndarray, "examples 1025"] | None:
    """What the file holds, or None where it is missing or damaged."""
    try:
        content = file.read_bytes()
    except OSError:
        return None
    rows = np.frombuffer(content, np.uint8, offset=min(DIGEST_BYTES, len(content)))
    if rows.size != examples * ROW_BYTES or content[:DIGEST_BYTES] != _digest(rows):
        return None
    return rows.reshape(examples, 1 + SIDE * SIDE)


def _digest(rows: np.ndarray) -> bytes:
    return hashlib.blake2b(rows.tobytes(), digest_size=DIGEST_BYTES).digest()

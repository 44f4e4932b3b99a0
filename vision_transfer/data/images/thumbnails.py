"""Thumbnails of all images of a split, computed once and kept in the cache."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8

from vision_transfer.data.dataset import DIGEST_BYTES, digest
from vision_transfer.data.images.decode import UndecodableError, decoder_version
from vision_transfer.data.images.near_duplicates import SIDE, THUMBNAIL_VERSION, thumbnail
from vision_transfer.data.images.parallel import map_in_order
from vision_transfer.data.source import Examples
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.files import replaced_file

FOLDER = "thumbnails"
# One byte for whether the image can be decoded, and its grey pixels.
ROW_BYTES = 1 + SIDE * SIDE
_GREY = 1


@dataclass(frozen=True)
class Thumbnails:
    """A thumbnail of each example, and whether the example can be decoded (if not, the thumbnail is black)."""

    pixels: UInt8[np.ndarray, "examples 32 32"]
    decoded: Bool[np.ndarray, "examples"]


def load_thumbnails(examples: Examples, content: str, cache_dir: Path, screen: Screen) -> Thumbnails:
    """Thumbnails from the cache, or computed and cached; `content` is a digest of all that determines the pixels."""
    version = f"{content} {THUMBNAIL_VERSION} {decoder_version()}"
    file = cache_dir / FOLDER / digest(version.encode()).hex()
    rows = _read(file, len(examples.files))
    if rows is None:
        rows = _compute(examples, screen)
        with replaced_file(file) as temporary:
            temporary.write_bytes(digest(rows.tobytes()) + rows.tobytes())
    return Thumbnails(rows[:, 1:].reshape(-1, SIDE, SIDE), rows[:, 0] > 0)


def _compute(examples: Examples, screen: Screen) -> UInt8[np.ndarray, "examples 1025"]:
    def row_of(index: int) -> np.ndarray:
        row = np.zeros(ROW_BYTES, np.uint8)
        try:
            row[1:] = thumbnail(examples.pixels(index, _GREY)).reshape(-1)
        except UndecodableError:
            return row
        row[0] = 1
        return row

    indices = range(len(examples.files))
    rows = map_in_order(row_of, indices, screen=screen, title="Looking for near-duplicates")
    return np.array(list(rows), np.uint8).reshape(len(indices), ROW_BYTES)


def _read(file: Path, examples: int) -> UInt8[np.ndarray, "examples 1025"] | None:
    """The rows in the file, or None if it is missing or damaged."""
    try:
        content = file.read_bytes()
    except OSError:
        return None
    rows = np.frombuffer(content, np.uint8, offset=min(DIGEST_BYTES, len(content)))
    if rows.size != examples * ROW_BYTES or content[:DIGEST_BYTES] != digest(rows.tobytes()):
        return None
    return rows.reshape(examples, ROW_BYTES)

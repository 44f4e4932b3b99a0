"""Near-duplicates found by a perceptual hash: copies that were resized, compressed again or brightened.

Each image is represented by a thumbnail. Similar hashes of two thumbnails propose a pair, and the correlation of their
grey gradients confirms it. Differences in colour alone are ignored; crops, reflections and other shots of the same
object are not found. Images with far fewer pixels than a thumbnail look alike, and many of them are taken for copies.

The thresholds were chosen on 300 photos and their copies (half the size; JPEG of quality 30; 1.3 times as bright):
hashes differed by at most 12 bits and gradients correlated by at least 0.907. Of 10.1 million pairs of different images
(4,000 photos of cats and dogs, 2,062 of hands making signs) only true copies were above 0.80.
`tests/data/images/measure_near_duplicates.py` prints these numbers.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64, UInt8, UInt64

from vision_transfer.data.dataset import digest
from vision_transfer.data.images.cache import kept_bytes
from vision_transfer.data.images.decode import UndecodableError, decoder_version
from vision_transfer.data.images.parallel import map_in_order
from vision_transfer.data.source import Examples
from vision_transfer.runtime.console import Screen

# Part of the cache's key: to be raised when the same pixels give another thumbnail.
THUMBNAIL_VERSION = 1
SIDE = 32
# Likewise, when the same thumbnails give other pairs.
PAIRS_VERSION = 1
PAIRS_FOLDER = "near_duplicates"
# The cache has a file of thumbnails of training images: for each image whether it can be decoded, and its grey pixels.
THUMBNAILS_FOLDER = "thumbnails"
ROW_BYTES = 1 + SIDE * SIDE
_GREY = 1
# Of 64 bits.
MOST_BITS_APART = 12
LEAST_CORRELATION = 0.9
# The number of lowest frequencies along each axis that the hash uses.
_FREQUENCIES = 8
# Hashes compared with hashes at a time, so that their differences stay in a core's cache (400 to 600 million pairs a
# second; four times as many as with all columns at once), and images hashed and candidates confirmed at a time, for the
# same reason (an eighth of the time of 8,192).
_ROWS, _COLUMNS, _CANDIDATES = 32, 4096, 1024
# Bands of a hash; with fewer hashes, comparing all with all is faster than looking up those with similar bands.
_BANDS, _BAND_BITS, _FEW = 4, 16, 130_000


@dataclass(frozen=True)
class NearPairs:
    """Pairs of near-duplicates: indices of both images (ascending), and the correlation of their gradients."""

    pairs: Int32[np.ndarray, "pairs 2"]
    similarity: Float32[np.ndarray, "pairs"]


def thumbnail(image: UInt8[np.ndarray, "height width channels"]) -> UInt8[np.ndarray, "32 32"]:
    """The image in grey, each pixel the mean of its part of the image; the aspect ratio is not kept."""
    from PIL import Image

    grey = image[:, :, 0] if image.shape[2] == 1 else np.asarray(Image.fromarray(image).convert("L"))
    return np.asarray(Image.fromarray(grey).resize((SIDE, SIDE), Image.Resampling.BOX))


def perceptual_hashes(thumbnails: UInt8[np.ndarray, "n 32 32"]) -> UInt64[np.ndarray, "n"]:
    """Perceptual hashes: a bit for each of the 8 x 8 lowest frequencies of the cosine transform but the mean.

    A bit is set if its frequency is above their median ("pHash": Zauner 2010, "Implementation and benchmarking of
    perceptual image hash functions").
    """
    from scipy.fft import dctn

    spectrum = np.asarray(dctn(thumbnails.astype(np.float32), axes=(1, 2), norm="ortho"))
    low = spectrum[:, :_FREQUENCIES, :_FREQUENCIES].reshape(-1, _FREQUENCIES**2)
    bits = low > np.median(low[:, 1:], axis=1, keepdims=True)
    bits[:, 0] = False
    return np.packbits(bits, axis=1).view("<u8")[:, 0]


def near_duplicates(thumbnails: UInt8[np.ndarray, "n 32 32"], usable: Bool[np.ndarray, "n"] | None = None) -> NearPairs:
    """All pairs of near-duplicates among the usable thumbnails (None: all), in ascending order.

    Images of a single colour have no gradients and are near-duplicates of nothing.
    """
    chosen = np.arange(len(thumbnails)) if usable is None else np.flatnonzero(usable)
    # Many blank images would all be candidates of each other.
    chosen = chosen[_vary(thumbnails, chosen)]
    blocks = (chosen[first : first + _CANDIDATES] for first in range(0, len(chosen), _CANDIDATES))
    hashes = np.concatenate([np.empty(0, np.uint64), *(perceptual_hashes(thumbnails[block]) for block in blocks)])
    pairs: list[np.ndarray] = [np.empty((0, 2), np.int32)]
    similarity: list[np.ndarray] = [np.empty(0, np.float32)]
    for candidates in _in_blocks(_similar_hashes(hashes)):
        some = chosen[candidates].astype(np.int32)
        found = gradient_correlation(thumbnails[some[:, 0]], thumbnails[some[:, 1]])
        confirmed = found >= LEAST_CORRELATION
        pairs.append(some[confirmed])
        similarity.append(found[confirmed])
    found, similar = np.concatenate(pairs), np.concatenate(similarity)
    order = np.lexsort((found[:, 1], found[:, 0]))
    return NearPairs(found[order], similar[order])


def _vary(thumbnails: UInt8[np.ndarray, "n 32 32"], chosen: Int64[np.ndarray, "chosen"]) -> Bool[np.ndarray, "chosen"]:
    """Whether each of the chosen thumbnails has more than one value."""
    blocks = (thumbnails[chosen[first : first + _CANDIDATES]] for first in range(0, len(chosen), _CANDIDATES))
    return np.concatenate([np.empty(0, bool), *(block.min((1, 2)) < block.max((1, 2)) for block in blocks)])


def _similar_hashes(hashes: UInt64[np.ndarray, "n"]) -> Iterator[Int64[np.ndarray, "pairs 2"]]:
    """Pairs of indices (ascending) of hashes that differ by at most `MOST_BITS_APART`, each pair once, in some order.

    Many hashes are divided into bands. Two that differ by at most 12 bits differ by at most 3 in one of their 4 bands,
    so each is compared with those whose band is one of the 697 that are so near: one of 17 for photos, one of 24 if
    bits were independent ("multi-index hashing": Norouzi et al. 2014, arXiv:1307.2982).
    """
    if len(hashes) < _FEW:
        every = np.arange(len(hashes))
        for first in range(0, len(hashes), _ROWS):
            pairs = _compared(hashes, every[first : first + _ROWS], every[first:])
            yield pairs[pairs[:, 0] < pairs[:, 1]]
        return
    most, values = MOST_BITS_APART // _BANDS, np.arange(2**_BAND_BITS)
    masks = values[np.bitwise_count(values) <= most]
    bands = hashes.view("<u2").reshape(-1, _BANDS).astype(np.int64)
    for band in range(_BANDS):
        order = np.argsort(bands[:, band], kind="stable")
        starts = np.searchsorted(bands[order, band], np.arange(2**_BAND_BITS + 1))
        for value in np.unique(bands[:, band]).tolist():
            near = masks ^ value
            near = near[near >= value]
            lengths = starts[near + 1] - starts[near]
            # The ranges from starts[near] to starts[near + 1], one after the other.
            places = np.repeat(starts[near] - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())
            pairs = _compared(hashes, order[starts[value] : starts[value + 1]], order[places])
            first, second = bands[pairs[:, 0]], bands[pairs[:, 1]]
            # Pairs of one value come in both orders, and a pair may be alike in several bands.
            once = (first[:, band] < second[:, band]) | (pairs[:, 0] < pairs[:, 1])
            earlier = np.bitwise_count(first[:, :band] ^ second[:, :band]) <= most
            yield np.sort(pairs[once & ~earlier.any(axis=1)], axis=1)


def _in_blocks(pairs: Iterable[Int64[np.ndarray, "some 2"]]) -> Iterator[Int64[np.ndarray, "block 2"]]:
    """The same pairs, `_CANDIDATES` at a time."""
    waiting = [np.empty((0, 2), np.int64)]
    count = 0
    for some in pairs:
        waiting.append(some)
        count += len(some)
        if count >= _CANDIDATES:
            joined = np.concatenate(waiting)
            whole = count - count % _CANDIDATES
            yield from np.split(joined[:whole], whole // _CANDIDATES)
            waiting, count = [joined[whole:]], count - whole
    if count:
        yield np.concatenate(waiting)


def _compared(
    hashes: UInt64[np.ndarray, "n"], rows: Int64[np.ndarray, "rows"], columns: Int64[np.ndarray, "columns"]
) -> Int64[np.ndarray, "pairs 2"]:
    """Pairs of a row and a column whose hashes differ by at most `MOST_BITS_APART`."""
    found = [np.empty((0, 2), np.int64)]
    left, right = hashes[rows], hashes[columns]
    for top in range(0, len(rows), _ROWS):
        for begin in range(0, len(columns), _COLUMNS):
            apart = np.bitwise_count(left[top : top + _ROWS, None] ^ right[None, begin : begin + _COLUMNS])
            similar = apart <= MOST_BITS_APART
            if similar.any():
                row, column = np.nonzero(similar)
                found.append(np.stack([rows[top + row], columns[begin + column]], axis=1))
    return np.concatenate(found)


def gradient_correlation(
    first: UInt8[np.ndarray, "n 32 32"], second: UInt8[np.ndarray, "n 32 32"]
) -> Float32[np.ndarray, "n"]:
    """Cosine between the horizontal and vertical differences of two thumbnails, row by row; 0 if one has none."""
    one, other = _gradients(first), _gradients(second)
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return np.divide(np.sum(one * other, axis=1), norms, out=np.zeros_like(norms), where=norms > 0)


def equal_contents(contents: UInt8[np.ndarray, "n 16"]) -> Int32[np.ndarray, "pairs 2"]:
    """The index of each repeated content, preceded by the index of its first occurrence."""
    # Millions of digests are sorted by their first half in a tenth of the time of all their bytes.
    starts = np.ascontiguousarray(contents[:, :8]).view("<u8")[:, 0]
    ordered = np.sort(starts)
    repeated = ordered[1:][ordered[1:] == ordered[:-1]]
    several = np.flatnonzero(np.isin(starts, repeated)) if len(repeated) else np.empty(0, np.int64)
    first: dict[bytes, int] = {}
    pairs = [(first.setdefault(contents[place].tobytes(), place), place) for place in several.tolist()]
    return np.array([pair for pair in pairs if pair[0] != pair[1]], np.int32).reshape(-1, 2)


def connected(count: int, pairs: Int32[np.ndarray, "pairs 2"]) -> Int32[np.ndarray, "count"]:
    """The group number of each of `count` items, where both items of a pair are in the same group."""
    if not len(pairs):
        return np.arange(count, dtype=np.int32)
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return connected_components(graph, directed=False)[1].astype(np.int32)


def _gradients(thumbnails: np.ndarray) -> Float32[np.ndarray, "n values"]:
    wide = thumbnails.astype(np.float32)
    along_rows, along_columns = np.diff(wide, axis=2), np.diff(wide, axis=1)
    return np.concatenate([part.reshape(len(wide), -1) for part in (along_rows, along_columns)], axis=1)


def load_near_pairs(
    examples: Examples, content: str, cache_dir: Path, screen: Screen
) -> tuple[Int32[np.ndarray, "pairs 2"], Bool[np.ndarray, "examples"]]:
    """Pairs of near-duplicates, and a mask of the examples that can be decoded; the pairs count those only, from 0.

    They come from the cache, or are found and cached; see `load_thumbnails`.
    """

    def find() -> bytes:
        thumbnails, decoded = load_thumbnails(examples, content, cache_dir, screen)
        pairs = near_duplicates(thumbnails[decoded]).pairs
        return np.packbits(decoded).tobytes() + pairs.astype("<i4").tobytes()

    rule = f"{PAIRS_VERSION} {MOST_BITS_APART} {LEAST_CORRELATION}"
    version = f"{content} {rule} {THUMBNAIL_VERSION} {decoder_version()}"
    kept = kept_bytes(cache_dir / PAIRS_FOLDER / digest(version.encode()).hex(), None, find)
    count = len(examples.files)
    decoded = np.unpackbits(np.frombuffer(kept, np.uint8, -(-count // 8)), count=count).astype(bool)
    pairs = np.frombuffer(kept, "<i4", offset=-(-count // 8)).reshape(-1, 2).astype(np.int32)
    return pairs, decoded


def load_thumbnails(
    examples: Examples, content: str, cache_dir: Path, screen: Screen
) -> tuple[UInt8[np.ndarray, "examples 32 32"], Bool[np.ndarray, "examples"]]:
    """Thumbnails from the cache, or computed and cached; and whether each could be decoded (if not, it is black).

    `content` is a digest of all that determines the pixels.
    """
    version = f"{content} {THUMBNAIL_VERSION} {decoder_version()}"
    file, size = cache_dir / THUMBNAILS_FOLDER / digest(version.encode()).hex(), ROW_BYTES * len(examples.files)
    kept = kept_bytes(file, size, lambda: _thumbnail_rows(examples, screen).tobytes())
    rows = np.frombuffer(kept, np.uint8).reshape(-1, ROW_BYTES)
    return rows[:, 1:].reshape(-1, SIDE, SIDE), rows[:, 0] > 0


def _thumbnail_rows(examples: Examples, screen: Screen) -> UInt8[np.ndarray, "examples 1025"]:
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

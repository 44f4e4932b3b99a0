"""Doubts about a data set, as sentences: images without contrast, and splits too small to measure by.

A run shows them on its first screen, and `--mode=check` lists them.
"""

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Int, UInt8

from vision_transfer.data.images.decode import wide_values
from vision_transfer.data.rows import Rows
from vision_transfer.data.source import Examples
from vision_transfer.errors import UserError
from vision_transfer.metrics.classification import wilson_interval

# An image in which no channel spans more levels than this, of 256, shows nothing to an eye or a network: 12 bits read
# as 16 span 16 levels.
LEAST_CONTRAST = 16
# Every so many rows and columns are looked at first.
_STEP = 8
_ROWS = 64
# A wider 95 % interval of the accuracy cannot tell two runs apart that differ by as much as depths of freezing do.
WIDEST_INTERVAL = 0.1
# With fewer images of a class, one image changes its recall by more than 20 points.
FEWEST_OF_A_CLASS = 5
# Files looked at to tell the range of their values.
_LOOKED_AT = 50
_LARGEST = 2**16 - 1


def without_contrast(images: Rows) -> Bool[np.ndarray, "examples"]:
    """Whether each image is of nearly one colour: no channel spans `LEAST_CONTRAST` levels."""
    found = np.zeros(images.shape[0], bool)
    for first in range(0, len(found), _ROWS):
        sample = images[first : first + _ROWS][:, ::_STEP, ::_STEP]
        for row in np.flatnonzero(spans(sample) < LEAST_CONTRAST) + first:
            found[row] = spans(images[row : row + 1])[0] < LEAST_CONTRAST
    return found


def say_without_contrast(
    flat: Sequence[str], examples: Mapping[str, Examples], count: int, value_range: tuple[float, ...]
) -> list[str]:
    """A sentence about images without contrast, if there are any; `flat` has their names, of `count` images.

    Raises:
        UserError: they are at least half of the images and have more than 8 bits, so that their values were lost.
    """
    if not flat:
        return []
    ranges = list(_wide_ranges(set(flat[:_LOOKED_AT]), examples.values()))
    what = f"{len(flat):,} of {count:,} images have no contrast: each is of nearly one colour (such as {flat[0]})"
    if not ranges:
        return [what]
    low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
    if low == high:
        return [what]
    what += f"; their files have more than 8 bits, and values from {low:g} to {high:g}"
    if value_range:
        return [f"{what}, while --config.dataset.value_range is {value_range[0]:g},{value_range[1]:g}"]
    what += f", of which only the upper 8 of 16 bits are read. --config.dataset.value_range={_range_for(low, high)}"
    if 2 * len(flat) >= count:
        raise UserError(f"{what} reads all of them.")
    return [f"{what} would read all of them"]


def say_too_small(split: str, classes: Sequence[str], labels: Int[np.ndarray, "examples"]) -> list[str]:
    """A sentence about a split by which nothing can be chosen or measured, if it is one."""
    counts, total = np.bincount(labels, minlength=len(classes)), len(labels)
    if not total:
        if split != "validation":
            return []
        return [
            "there are no validation images, so nothing can be chosen by them (an epoch, a depth of freezing), and "
            "probabilities are not calibrated"
        ]
    half = widest_interval(total)
    least = int(np.argmin(counts))
    if half <= WIDEST_INTERVAL and counts[least] >= min(FEWEST_OF_A_CLASS, total / len(classes)):
        return []
    number = f"{total:,} {split} image{'s' * (total > 1)}, {counts[least]:,} of {classes[least]}"
    return [
        f"{number}: an accuracy measured on them has a 95 % interval of up to ±{half:.2f}; smaller differences between "
        "runs mean nothing"
    ]


def widest_interval(examples: int) -> float:
    """Half the width of the 95 % interval of an accuracy of one half, where it is widest (Wilson)."""
    low, high = wilson_interval(round(examples / 2), examples)
    return (high - low) / 2


def spans(images: UInt8[np.ndarray, "examples height width channels"]) -> Int[np.ndarray, "examples"]:
    """The largest span of levels of any channel of each image."""
    flat = images.reshape(len(images), -1, images.shape[-1])
    return (flat.max(axis=1).astype(int) - flat.min(axis=1)).max(axis=1)


def _wide_ranges(files: Container[str], parts: Iterable[Examples]) -> Iterator[tuple[float, float]]:
    for part in parts:
        if part.read is not None:
            places = [place for place, file in enumerate(part.files) if file in files]
            yield from filter(None, map(wide_values, map(part.read, places)))


def _range_for(low: float, high: float) -> str:
    """The usual range that values lie in: 0 to a power of two less 1, or their own."""
    if low >= 0 and float(high).is_integer() and 1 < high <= _LARGEST:
        return f"0,{2 ** int(high).bit_length() - 1}"
    return f"{low:g},{high:g}"

"""Sources made of arrays: the common part of IDX and npz files, and the embedded digits."""

import hashlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Int32, Integer, UInt8

from vision_transfer.data.dataset import DIGEST_BYTES
from vision_transfer.data.source import Examples, Source
from vision_transfer.data.subset import rank_in_class
from vision_transfer.errors import UserError

# No array of a small data set comes near this; a file that declares more is damaged or malicious.
MAX_ARRAY_BYTES = 2**32
# More than the recipes are made for; a larger label is damage.
MAX_CLASSES = 1000
# The embedded digits: grey levels from 0 to 16, images per class of two splits.
_DIGIT_LEVELS, _DIGIT_SIDE = 16, 8
_DIGITS_FILE = "datasets/data/digits.csv.gz"
_DIGIT_TRAIN_PER_CLASS, _DIGIT_VALIDATION_PER_CLASS = 60, 20

Arrays = tuple[UInt8[np.ndarray, "examples height width channels"], Integer[np.ndarray, "examples"]]


def array_source(
    name: str, where: str, splits: Mapping[str, Arrays], classes: tuple[str, ...] | None, expected: str
) -> Source:
    """A source of arrays that were read from `where`; without known `classes`, from 0 to the largest label.

    Raises:
        UserError: the arrays do not fit each other, or a label is out of range.
    """
    names = _checked_classes(where, splits, classes)
    height, width = splits["train"][0].shape[1:3]
    return Source(
        name=name,
        classes=names,
        splits={split: array_examples(split, *arrays) for split, arrays in splits.items()},
        content=arrays_digest(splits),
        default_size=max(height, width),
        note=f"{name}, from {where}.",
        expected=expected,
    )


def array_examples(name: str, images: UInt8[np.ndarray, "examples height width channels"], labels: Int32) -> Examples:
    """Examples named `name/0`, `name/1`, ... whose pixels are rows of an array with 1 or 3 channels."""
    files = tuple(f"{name}/{index}" for index in range(len(images)))
    return Examples(
        files,
        labels.astype(np.int32),
        lambda index, channels: _with_channels(images[index], channels),
        in_memory=True,
    )


def _with_channels(
    image: UInt8[np.ndarray, "height width stored"], channels: int
) -> UInt8[np.ndarray, "height width channels"]:
    """Repeats grey to RGB, or converts RGB to grey by Pillow's weights (ITU-R 601-2), if the channels differ."""
    if image.shape[2] == channels:
        return image
    if image.shape[2] == 1:
        return np.repeat(image, channels, axis=2)
    from PIL import Image

    return np.asarray(Image.fromarray(image).convert("L"))[:, :, None]


def _checked_classes(where: str, splits: Mapping[str, Arrays], classes: tuple[str, ...] | None) -> tuple[str, ...]:
    """The class names, once images and labels fit each other and no label is out of range."""
    shapes = {images.shape[1:] for images, _ in splits.values()}
    if len(shapes) > 1:
        raise UserError(f"{where}: images of the splits differ in shape: {', '.join(map(str, sorted(shapes)))}.")
    for split, (images, labels) in splits.items():
        if len(images) != len(labels):
            raise UserError(f"{where}: {split} has {len(images):,} images, but {len(labels):,} labels.")
        if not len(labels):
            raise UserError(f"{where}: {split} is empty.")
    lowest = min(int(labels.min()) for _, labels in splits.values())
    highest = max(int(labels.max()) for _, labels in splits.values())
    most = len(classes) if classes else MAX_CLASSES
    if lowest < 0 or highest >= most:
        outside = lowest if lowest < 0 else highest
        raise UserError(f"{where}: label {outside} is out of range; labels go from 0 to {most - 1}.")
    if highest == 0 and classes is None:
        raise UserError(f"{where}: all labels are 0. At least two classes are needed.")
    return classes or tuple(str(label) for label in range(highest + 1))


def arrays_digest(splits: Mapping[str, Arrays]) -> str:
    """Digest of the arrays themselves, so that the same data in another file format has the same fingerprint."""
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for split, (images, labels) in sorted(splits.items()):
        for array in (images, labels.astype("<i4")):
            digest.update(f"{split} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def embedded_source() -> Source:
    """Scikit-learn's handwritten digits: 60 training and 20 validation images per class; the other 997 are for testing.

    1,797 real 8x8 images in 10 classes (Alpaydin and Kaynak 1998, UCI "Optical Recognition of Handwritten Digits"),
    enlarged to RGB. Few training images per class, so that fine-tuning has something to gain.
    """
    found = importlib.util.find_spec("sklearn")
    assert found is not None and found.origin is not None, "scikit-learn is a dependency"
    # The file alone, since importing scikit-learn takes a second, more than a small run's epoch.
    table = np.loadtxt(Path(found.origin).parent / _DIGITS_FILE, dtype=np.int32, delimiter=",")
    pixels, labels = table[:, :-1], table[:, -1]
    images = np.rint(pixels * (255 / _DIGIT_LEVELS)).astype(np.uint8).reshape(-1, _DIGIT_SIDE, _DIGIT_SIDE, 1)
    examples = array_examples("digits", images, labels)
    ranks = rank_in_class(labels, examples.files, "embedded", seed=0)
    train = ranks < _DIGIT_TRAIN_PER_CLASS
    validation = ~train & (ranks < _DIGIT_TRAIN_PER_CLASS + _DIGIT_VALIDATION_PER_CLASS)
    chosen = {"train": train, "validation": validation, "test": ~train & ~validation}
    return Source(
        name="embedded digits",
        classes=tuple(str(digit) for digit in range(10)),
        splits={split: examples.take(np.flatnonzero(mask).astype(np.int32)) for split, mask in chosen.items()},
        content=arrays_digest({"all": (images, labels)}),
        default_size=48,
        note="scikit-learn's handwritten digits (1,797 images of 8x8, enlarged), which come with this program.",
        in_memory=True,
    )

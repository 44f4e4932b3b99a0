"""Sources made of arrays: what IDX and npz files, and the embedded digits, have in common."""

import hashlib
from collections.abc import Mapping

import numpy as np
from jaxtyping import Int32, Integer, UInt8

from vision_transfer.data.source import Examples, Source
from vision_transfer.errors import UserError

# No array of a small data set comes near this; a file that declares more is damaged or means harm.
MAX_ARRAY_BYTES = 2**32
# What the classic ladder's recipes are made for; a label beyond is damage.
MAX_CLASSES = 1000

Arrays = tuple[UInt8[np.ndarray, "examples height width channels"], Integer[np.ndarray, "examples"]]


def array_source(
    name: str, where: str, splits: Mapping[str, Arrays], classes: tuple[str, ...] | None, expected: str
) -> Source:
    """A source of arrays that were read from `where`.

    Args:
        name: of the data.
        where: the file or folder, for messages.
        splits: images and labels by split, `train` among them.
        classes: known names, or None to take the numbers from 0 to the largest label.
        expected: where examples of this source must lie, for messages.

    Raises:
        UserError: the arrays do not fit each other.
    """
    names = check_arrays(where, splits, classes)
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

    def pixels(index: int, channels: int) -> np.ndarray:
        return with_channels(images[index], channels)

    files = tuple(f"{name}/{index}" for index in range(len(images)))
    return Examples(files, labels.astype(np.int32), pixels)


def with_channels(
    image: UInt8[np.ndarray, "height width stored"], channels: int
) -> UInt8[np.ndarray, "height width channels"]:
    """Grey repeated to RGB, or RGB made grey by Pillow's weights (ITU-R 601-2), where the channels differ."""
    if image.shape[2] == channels:
        return image
    if image.shape[2] == 1:
        return np.repeat(image, channels, axis=2)
    from PIL import Image

    return np.asarray(Image.fromarray(image).convert("L"))[:, :, None]


def check_arrays(where: str, splits: Mapping[str, Arrays], classes: tuple[str, ...] | None) -> tuple[str, ...]:
    """Checks that images and labels fit each other and that no label is out of range; returns the class names.

    Args:
        where: the file or folder, for messages.
        splits: images and labels by split.
        classes: known names, or None to take the numbers from 0 to the largest label.

    Raises:
        UserError: something does not fit.
    """
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
    """Digest of the arrays themselves, so that the same data packed otherwise has the same fingerprint."""
    digest = hashlib.blake2b(digest_size=16)
    for split, (images, labels) in sorted(splits.items()):
        for array in (images, labels.astype("<i4")):
            digest.update(f"{split} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()

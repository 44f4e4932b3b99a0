"""The types of a data set: its decoded splits and the files left out; and digests of their content."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Int32, Int64, UInt8, UInt32

from vision_transfer.data.rows import Rows, TakenRows

DIGEST_BYTES = 16
# Each split, and the names it may have in a folder, table or file, in any case.
SPLIT_NAMES = {
    "train": ("train", "training", "trainset", "train_set"),
    "validation": ("validation", "valid", "val", "validate", "valid_set", "val_set", "valset", "dev"),
    "test": ("test", "testing", "testset", "test_set"),
}
SPLITS = tuple(SPLIT_NAMES)


@dataclass(frozen=True)
class Skipped:
    """A file that was left out, and why."""

    file: str
    reason: str


@dataclass(frozen=True)
class Split:
    """Decoded examples of one split.

    Attributes:
        images: pixels `(examples, height, width, channels) uint8`: an array, or rows that are read from the decoded
            cache or decoded when they are taken.
        labels: indices into the data set's `classes`.
        files: name of each example: the path relative to the data set's folder with `/` between the parts
            (bytes that are not UTF-8 as escapes), or `train/123` for sources made of arrays.
        digests: blake2b-128 of shape and pixels; identifies an image by its content.
        without_contrast: whether each image is of nearly one colour; None where nobody has looked yet.
        groups: what each example belongs to, such as a patient, if the data names it; an empty name is none.
    """

    images: Rows
    labels: Int32[np.ndarray, "examples"]
    files: tuple[str, ...]
    digests: UInt8[np.ndarray, "examples 16"]
    without_contrast: Bool[np.ndarray, "examples"] | None = None
    groups: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.files)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        height, width, channels = self.images.shape[1:]
        return height, width, channels

    @property
    def example_ids(self) -> UInt32[np.ndarray, "examples"]:
        """The first four bytes of each digest, on which augmentation and dropout of an image depend."""
        return np.ascontiguousarray(self.digests[:, :4]).view("<u4")[:, 0].astype(np.uint32)

    def take(self, indices: Int32[np.ndarray, "chosen"]) -> "Split":
        """The examples at `indices`, in that order; pixels that are on disk stay there."""
        images = self.images
        if isinstance(images, TakenRows):
            images = replace(images, numbers=images.numbers[indices])
        else:
            images = images[indices] if isinstance(images, np.ndarray) else TakenRows(images, indices)
        return Split(
            images=images,
            labels=self.labels[indices],
            files=tuple(map(self.files.__getitem__, indices.tolist())),
            digests=self.digests[indices],
            without_contrast=None if self.without_contrast is None else self.without_contrast[indices],
            groups=tuple(map(self.groups.__getitem__, indices.tolist())) if self.groups else (),
        )


@dataclass(frozen=True)
class Dataset:
    """A data set, ready for training; its note tells which data was used and how to get other data.

    Its warnings are sentences about what is probably a mistake, or makes its metrics uncertain.

    The fingerprint is a digest of the source's content, classes and splits, independent of location and file times.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    fingerprint: str
    skipped: tuple[Skipped, ...]
    note: str
    warnings: tuple[str, ...] = ()


def split_named(name: str) -> str | None:
    """The split that a name means, in any case and with spaces, hyphens or underscores; None if it means none."""
    plain = name.strip().lower().replace("-", "_").replace(" ", "_")
    return next((split for split, names in SPLIT_NAMES.items() if plain in names), None)


def digest(content: bytes) -> bytes:
    """blake2b-128 of bytes."""
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest()


def digest_image(image: UInt8[np.ndarray, "height width channels"]) -> bytes:
    """blake2b-128 of an image's shape (three little-endian uint32) and its pixels."""
    hashed = hashlib.blake2b(np.asarray(image.shape, "<u4").tobytes(), digest_size=DIGEST_BYTES)
    hashed.update(np.ascontiguousarray(image).data)
    return hashed.digest()


def stack_digests(digests: Sequence[bytes]) -> UInt8[np.ndarray, "examples 16"]:
    """Digests as the rows of an array."""
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, DIGEST_BYTES)


def find_digests(
    wanted: UInt8[np.ndarray, "wanted 16"], present: UInt8[np.ndarray, "present 16"]
) -> Int64[np.ndarray, "wanted"]:
    """The first place of each wanted digest among those present, or -1."""
    # Millions are sorted by their first half in a tenth of the time that whole digests take.
    first, among = (np.ascontiguousarray(digests).view("<u8").reshape(-1, 2)[:, 0] for digests in (wanted, present))
    order, questions = np.argsort(among, kind="stable"), np.argsort(first)
    ordered = among[order]
    places, found = np.empty(len(wanted), np.int64), np.full(len(wanted), -1)
    # Asked in order, so that neighbouring answers are in a core's cache.
    places[questions] = np.searchsorted(ordered, first[questions])
    left = np.arange(len(wanted))
    while len(left):
        left = left[places[left] < len(order)]
        left = left[ordered[places[left]] == first[left]]
        candidates = order[places[left]]
        same = (present[candidates] == wanted[left]).all(axis=1)
        found[left[same]] = candidates[same]
        left = left[~same]
        places[left] += 1
    return found

"""An undecoded data set: the names and labels of its examples, and a function that decodes one."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Int32, Integer, UInt8

from vision_transfer.data.dataset import DIGEST_BYTES, Skipped

# (index, channels) -> (height, width, channels) uint8, of any size; raises UndecodableError.
PixelsOf = Callable[[int, int], UInt8[np.ndarray, "height width channels"]]


@dataclass(frozen=True)
class Examples:
    """The undecoded examples of one split: names, indices into the source's `classes`, and what decodes one of them.

    Where examples are files, `contents` has the digest of each, and `read` returns the bytes of one. `groups` names
    what each belongs to, such as a patient, where the data says so; an empty name is none. With `in_memory` decoding
    costs nothing.
    """

    files: tuple[str, ...]
    labels: Int32[np.ndarray, "examples"]
    pixels: PixelsOf
    contents: UInt8[np.ndarray, "examples 16"] = field(default_factory=lambda: np.zeros((0, DIGEST_BYTES), np.uint8))
    read: Callable[[int], bytes] | None = None
    groups: tuple[str, ...] = ()
    in_memory: bool = False

    def take(self, indices: Integer[np.ndarray, "chosen"]) -> "Examples":
        """The examples at `indices`, in that order."""
        chosen, pixels, read = indices.tolist(), self.pixels, self.read
        return Examples(
            files=tuple(map(self.files.__getitem__, chosen)),
            labels=self.labels[indices],
            pixels=lambda index, channels: pixels(int(indices[index]), channels),
            contents=self.contents[indices] if len(self.contents) else self.contents,
            read=None if read is None else lambda index: read(int(indices[index])),
            groups=tuple(map(self.groups.__getitem__, chosen)) if self.groups else (),
            in_memory=self.in_memory,
        )

    def without(self, places: Sequence[int]) -> "Examples":
        """All examples but those at `places`."""
        return self.take(np.delete(np.arange(len(self.files)), places)) if places else self


def joined(parts: Sequence[Examples]) -> Examples:
    """The examples of all parts, which are of one source, one part after the other."""
    ends = np.cumsum([len(part.files) for part in parts])

    def place(index: int) -> tuple[Examples, int]:
        number = int(np.searchsorted(ends, index, side="right"))
        return parts[number], index - int(ends[number]) + len(parts[number].files)

    def pixels(index: int, channels: int) -> UInt8[np.ndarray, "height width channels"]:
        part, own = place(index)
        return part.pixels(own, channels)

    def read(index: int) -> bytes:
        part, own = place(index)
        assert part.read is not None, "either all parts are files or none is"
        return part.read(own)

    return Examples(
        files=tuple(file for part in parts for file in part.files),
        labels=np.concatenate([part.labels for part in parts]),
        pixels=pixels,
        contents=np.concatenate([part.contents for part in parts]),
        read=None if parts[0].read is None else read,
        groups=tuple(group for part in parts for group in part.groups),
        in_memory=all(part.in_memory for part in parts),
    )


@dataclass(frozen=True)
class Source:
    """A data set that was found but not decoded.

    Attributes:
        splits: examples by split name (`train`, and `validation` and `test` if the source has them).
        content: digest of all bytes that the pixels come from.
        default_size: height and width in pixels for `image_size=None`.
        note: a description of the data.
        warnings: sentences about what is probably a mistake, such as files that nothing reads.
        expected: the layout that this source requires, for error messages.
        in_memory: too small for the cache: decoded each time.
        has_near_duplicates: whether it may contain near-duplicates, which splits held out of it must keep together.
    """

    name: str
    classes: tuple[str, ...]
    splits: Mapping[str, Examples]
    content: str
    default_size: int
    skipped: tuple[Skipped, ...] = ()
    note: str = ""
    warnings: tuple[str, ...] = ()
    expected: str = ""
    in_memory: bool = False
    has_near_duplicates: bool = False

    def with_note(self, note: str) -> "Source":
        """Adds a sentence to the note."""
        return replace(self, note=f"{self.note} {note}".strip())

    def without(self, split: str, undecodable: Sequence[Skipped]) -> "Source":
        """Leaves files of a split out."""
        if not undecodable:
            return self
        left_out, examples = {item.file for item in undecodable}, self.splits[split]
        places = [place for place, file in enumerate(examples.files) if file in left_out]
        splits = {**self.splits, split: examples.without(places)}
        return replace(self, splits=splits, skipped=(*self.skipped, *undecodable))


def fingerprint(source: Source) -> str:
    """Digest of content, classes and splits (names and labels): 32 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for part in (source.content, *source.classes):
        _update(digest, part.encode())
    for split, examples in sorted(source.splits.items()):
        _update(digest, split.encode())
        _update(digest, "\0".join(examples.files).encode())
        _update(digest, examples.labels.astype("<i4").tobytes())
    return digest.hexdigest()


def _update(digest: "hashlib.blake2b", part: bytes) -> None:
    """Adds a part preceded by its length, so that no two lists of parts give the same bytes."""
    digest.update(len(part).to_bytes(8, "little"))
    digest.update(part)

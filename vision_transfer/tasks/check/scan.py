"""One pass over all pictures of a data set: does it decode, what kind of file is it, and a thumbnail of it."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Int32, UInt8

from vision_transfer.data.dataset import digest_image
from vision_transfer.data.images.decode import FORMATS, UndecodableError, decode_image, exif_orientation
from vision_transfer.data.images.near_duplicates import SIDE, thumbnail
from vision_transfer.data.images.parallel import map_in_order
from vision_transfer.data.source import Examples, Source
from vision_transfer.runtime.console import Screen

if TYPE_CHECKING:
    from PIL import Image

_GREY = 1
# Where a PNG's header has the number of bits of a channel.
_PNG_DEPTH_AT = 24
_OPAQUE = 255


@dataclass(frozen=True)
class Picture:
    """What the pass found out about one picture.

    Attributes:
        thumbnail: of its grey levels; black where it does not decode.
        content: digest of the file, or of the pixels where there is no file.
        problem: why it does not decode, or None.
        size: width and height in pixels, upright.
        format: Pillow's name of the file's format; empty where there is no file.
        is_grey: whether it has no colours by its kind.
        oddities: what is unusual about its kind of pixels, in words.
    """

    thumbnail: UInt8[np.ndarray, "32 32"]
    content: bytes
    problem: str | None = None
    size: tuple[int, int] = (0, 0)
    format: str = ""
    is_grey: bool = False
    oddities: tuple[str, ...] = ()


@dataclass(frozen=True)
class Looked:
    """All examples of all splits, one after the other.

    Attributes:
        classes: class names.
        split_names: names of the splits.
        files: of each example.
        labels: of each example.
        splits: place of each example's split in `split_names`.
        pictures: of each example.
    """

    classes: tuple[str, ...]
    split_names: tuple[str, ...]
    files: tuple[str, ...]
    labels: Int32[np.ndarray, "examples"]
    splits: Int32[np.ndarray, "examples"]
    pictures: tuple[Picture, ...]

    @property
    def decoded(self) -> Bool[np.ndarray, "examples"]:
        """Which of them are pictures."""
        return np.array([picture.problem is None for picture in self.pictures], bool)

    def split_of(self, place: int) -> str:
        """Name of an example's split."""
        return self.split_names[self.splits[place]]

    def class_of(self, place: int) -> str:
        """Name of an example's class."""
        return self.classes[self.labels[place]]


def look_at(source: Source, screen: Screen) -> Looked:
    """Reads and decodes every example once."""
    names = tuple(source.splits)
    parts = [source.splits[name] for name in names]
    pictures = [_look_at_split(examples, name, screen) for name, examples in source.splits.items()]
    return Looked(
        classes=source.classes,
        split_names=names,
        files=tuple(file for examples in parts for file in examples.files),
        labels=np.concatenate([examples.labels for examples in parts]),
        splits=np.repeat(np.arange(len(parts), dtype=np.int32), [len(examples.files) for examples in parts]),
        pictures=tuple(picture for part in pictures for picture in part),
    )


def _look_at_split(examples: Examples, name: str, screen: Screen) -> Sequence[Picture]:
    def look(index: int) -> Picture:
        if examples.read is None:
            pixels = examples.pixels(index, _GREY)
            return Picture(thumbnail(pixels), digest_image(pixels), size=(pixels.shape[1], pixels.shape[0]))
        return look_at_file(examples.read(index), examples.contents[index])

    return list(map_in_order(look, range(len(examples.files)), screen=screen, title=f"Looking at {name}"))


def look_at_file(content: bytes, digest: bytes) -> Picture:
    """What there is to say of one file's bytes."""
    try:
        pixels = decode_image(content, _GREY)
    except UndecodableError as reason:
        return Picture(np.zeros((SIDE, SIDE), np.uint8), digest, problem=str(reason))
    from PIL import Image

    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        return Picture(
            thumbnail(pixels),
            digest,
            size=(pixels.shape[1], pixels.shape[0]),
            format=str(image.format),
            is_grey=image.mode in ("1", "L", "LA") or image.mode.startswith("I"),
            oddities=_oddities(image, content),
        )


def _oddities(image: "Image.Image", content: bytes) -> tuple[str, ...]:
    """What is unusual about a picture that decodes, and how it is read."""
    try:
        return tuple(_found_oddities(image, content))
    except Exception as error:  # Pillow's plugins raise almost anything on bytes that are damaged behind the pixels.
        return (f"damaged in a part that is not read ({type(error).__name__})",)


def _found_oddities(image: "Image.Image", content: bytes) -> list[str]:
    found = []
    sixteen_bits = image.format == "PNG" and content[_PNG_DEPTH_AT] > 8
    if sixteen_bits or image.mode.startswith("I"):
        found.append("16 bits a channel, of which the upper 8 are read")
    if image.mode == "CMYK":
        found.append("CMYK, which is converted without a colour profile")
    if getattr(image, "is_animated", False) and image.format != "MPO":
        found.append("several frames, of which the first is read")
    if exif_orientation(image) not in (None, 1):
        found.append(f"turned by its EXIF tag (orientation {exif_orientation(image)}), which other programs may ignore")
    if "A" in image.getbands() or "transparency" in image.info:
        lowest = _lowest_alpha(image)
        if lowest < _OPAQUE:
            found.append(f"transparent parts ({image.mode}), whose hidden colours are read")
    elif image.mode in ("P", "1"):
        found.append("palette" if image.mode == "P" else "black and white only")
    return found


def _lowest_alpha(image: "Image.Image") -> int:
    alpha = image if "A" in image.getbands() else image.convert("RGBA")
    return int(np.asarray(alpha.getchannel("A")).min())

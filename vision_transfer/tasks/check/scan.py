"""The scan: one pass over a data set that decodes each image, inspects its file and makes a thumbnail."""

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
# Position of the number of bits per channel in a PNG's header.
_PNG_DEPTH_AT = 24
_OPAQUE = 255


@dataclass(frozen=True)
class ScannedImage:
    """The result of the scan for one image.

    Attributes:
        thumbnail: grey levels; black if the image does not decode.
        content: digest of the file, or of the pixels if there is no file.
        problem: the reason for which it does not decode, or None.
        size: width and height in pixels, upright.
        format: Pillow's name of the file's format; empty if there is no file.
        oddities: descriptions of what is unusual about its pixels.
    """

    thumbnail: UInt8[np.ndarray, "32 32"]
    content: bytes
    problem: str | None = None
    size: tuple[int, int] = (0, 0)
    format: str = ""
    is_grey: bool = False
    oddities: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scan:
    """All examples of all splits, one after the other; `splits` are places in `split_names`."""

    classes: tuple[str, ...]
    split_names: tuple[str, ...]
    files: tuple[str, ...]
    labels: Int32[np.ndarray, "examples"]
    splits: Int32[np.ndarray, "examples"]
    images: tuple[ScannedImage, ...]

    @property
    def decoded(self) -> Bool[np.ndarray, "examples"]:
        """Whether each example decodes."""
        return np.array([image.problem is None for image in self.images], bool)

    def split_of(self, place: int) -> str:
        """Name of an example's split."""
        return self.split_names[self.splits[place]]

    def class_of(self, place: int) -> str:
        """Name of an example's class."""
        return self.classes[self.labels[place]]


def scan_source(source: Source, screen: Screen) -> Scan:
    """Reads and decodes every example once."""
    parts = list(source.splits.values())
    images = [_scan_split(examples, name, screen) for name, examples in source.splits.items()]
    return Scan(
        classes=source.classes,
        split_names=tuple(source.splits),
        files=tuple(file for examples in parts for file in examples.files),
        labels=np.concatenate([examples.labels for examples in parts]),
        splits=np.repeat(np.arange(len(parts), dtype=np.int32), [len(examples.files) for examples in parts]),
        images=tuple(image for part in images for image in part),
    )


def _scan_split(examples: Examples, name: str, screen: Screen) -> Sequence[ScannedImage]:
    def scan(index: int) -> ScannedImage:
        if examples.read is None:
            pixels = examples.pixels(index, _GREY)
            return ScannedImage(thumbnail(pixels), digest_image(pixels), size=(pixels.shape[1], pixels.shape[0]))
        return scan_file(examples.read(index), examples.contents[index])

    return list(map_in_order(scan, range(len(examples.files)), screen=screen, title=f"Scanning {name}"))


def scan_file(content: bytes, digest: bytes) -> ScannedImage:
    """Scans the bytes of one file."""
    try:
        pixels = decode_image(content, _GREY)
    except UndecodableError as reason:
        return ScannedImage(np.zeros((SIDE, SIDE), np.uint8), digest, problem=str(reason))
    from PIL import Image

    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        try:
            oddities = tuple(_oddities(image, content))
        except Exception as error:  # Pillow's plugins raise almost anything if bytes after the pixels are damaged.
            oddities = (f"damaged in a part that is not needed ({type(error).__name__})",)
        return ScannedImage(
            thumbnail(pixels),
            digest,
            size=(pixels.shape[1], pixels.shape[0]),
            format=str(image.format),
            is_grey=image.mode in ("1", "L", "LA") or image.mode.startswith("I"),
            oddities=oddities,
        )


def _oddities(image: "Image.Image", content: bytes) -> list[str]:
    """Describes what is unusual about an image that decodes, and how it is read."""
    found = []
    sixteen_bits = image.format == "PNG" and content[_PNG_DEPTH_AT] > 8
    if sixteen_bits or image.mode.startswith("I"):
        found.append("16 bits per channel, of which the upper 8 are read")
    if image.mode == "CMYK":
        found.append("CMYK, converted without a colour profile")
    if getattr(image, "is_animated", False) and image.format != "MPO":
        found.append("several frames, of which only the first is read")
    if exif_orientation(image) not in (None, 1):
        found.append(f"turned by its EXIF tag (orientation {exif_orientation(image)}), which other programs may ignore")
    if "A" in image.getbands() or "transparency" in image.info:
        alpha = image if "A" in image.getbands() else image.convert("RGBA")
        if np.asarray(alpha.getchannel("A")).min() < _OPAQUE:
            found.append(f"transparent parts ({image.mode}), read with their hidden colours")
    elif image.mode in ("P", "1"):
        found.append("palette" if image.mode == "P" else "black and white only")
    return found

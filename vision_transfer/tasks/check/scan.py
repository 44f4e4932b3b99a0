"""The scan: one pass over a data set that decodes each image, inspects its file and makes a thumbnail."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Int32, UInt8

from vision_transfer.data.dataset import digest_image
from vision_transfer.data.doubts import spans
from vision_transfer.data.images.decode import UndecodableError, exif_orientation, has_wide_pixels, is_wide_grey
from vision_transfer.data.images.near_duplicates import SIDE, thumbnail
from vision_transfer.data.images.parallel import map_in_order
from vision_transfer.data.images.recognise import formats_read
from vision_transfer.data.source import Examples, Source
from vision_transfer.runtime.console import Screen

if TYPE_CHECKING:
    from PIL import Image

_OPAQUE = 255
# Levels are counted on at most about this many rows and columns.
_MOST_LOOKED_AT = 128
# Of the pixels, all but this share are darker than `ScannedImage.brightest`.
_BRIGHTEST = 0.01
_WHITE = 250


@dataclass(frozen=True)
class Exposure:
    """The levels (0–255) of an image's pixels.

    Attributes:
        span: levels between the darkest and the brightest pixel of the channel with the widest span.
        mean: of all pixels and channels.
        brightest: level that 1 % of the pixels exceed (in their brightest channel).
        white: share of pixels that are white or overexposed.
    """

    span: int
    mean: float
    brightest: float
    white: float


@dataclass(frozen=True)
class ScannedImage:
    """The result of the scan for one image.

    Attributes:
        thumbnail: grey levels; black if the image does not decode.
        content: digest of the file, or of the pixels if there is no file.
        problem: the reason for which it does not decode, or None.
        size: width and height in pixels, upright.
        exposure: levels of its pixels; None if it does not decode.
        format: Pillow's name of the file's format; empty if there is no file.
        is_wide: whether it is grey with more than 8 bits, whose range of values can be given.
        oddities: descriptions of what is unusual about its pixels.
    """

    thumbnail: UInt8[np.ndarray, "32 32"]
    content: bytes
    problem: str | None = None
    size: tuple[int, int] = (0, 0)
    exposure: Exposure | None = None
    format: str = ""
    is_grey: bool = False
    is_wide: bool = False
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


def scan_source(source: Source, channels: int, screen: Screen) -> Scan:
    """Reads and decodes every example once, as a run with this number of channels would."""
    parts = list(source.splits.values())
    images = [_scan_split(examples, channels, name, screen) for name, examples in source.splits.items()]
    return Scan(
        classes=source.classes,
        split_names=tuple(source.splits),
        files=tuple(file for examples in parts for file in examples.files),
        labels=np.concatenate([examples.labels for examples in parts]),
        splits=np.repeat(np.arange(len(parts), dtype=np.int32), [len(examples.files) for examples in parts]),
        images=tuple(image for part in images for image in part),
    )


def _scan_split(examples: Examples, channels: int, name: str, screen: Screen) -> Sequence[ScannedImage]:
    def scan(index: int) -> ScannedImage:
        try:
            pixels = examples.pixels(index, channels)
        except UndecodableError as reason:
            content = examples.contents[index].tobytes() if len(examples.contents) else b""
            return ScannedImage(np.zeros((SIDE, SIDE), np.uint8), content, problem=str(reason))
        size = (pixels.shape[1], pixels.shape[0])
        if examples.read is None:
            return ScannedImage(thumbnail(pixels), digest_image(pixels), size=size, exposure=exposure_of(pixels))
        found = inspected(examples.read(index))
        return ScannedImage(
            thumbnail(pixels), examples.contents[index].tobytes(), size=size, exposure=exposure_of(pixels), **found
        )

    return list(map_in_order(scan, range(len(examples.files)), screen=screen, title=f"Scanning {name}"))


def exposure_of(pixels: UInt8[np.ndarray, "height width channels"]) -> Exposure:
    """The levels of an image; of a large one, those of every so many rows and columns."""
    rows, columns = (max(1, side // _MOST_LOOKED_AT) for side in pixels.shape[:2])
    sample = pixels[::rows, ::columns]
    brightest, darkest = sample.max(axis=2), sample.min(axis=2)
    return Exposure(
        span=int(spans(pixels[None])[0]),
        mean=float(sample.mean()),
        brightest=float(np.quantile(brightest, 1 - _BRIGHTEST)),
        white=float(np.mean(darkest >= _WHITE)),
    )


def inspected(content: bytes) -> dict[str, Any]:
    """Facts about a file that decodes, besides its pixels: fields of `ScannedImage`."""
    from PIL import Image

    with Image.open(io.BytesIO(content), formats=formats_read()) as image:
        try:
            oddities = tuple(_oddities(image, content))
        except MemoryError:  # says nothing about the file
            raise
        except Exception as error:  # Pillow's plugins raise almost anything if bytes after the pixels are damaged.
            oddities = (f"damaged in a part that is not needed ({type(error).__name__})",)
        is_grey = image.mode in ("1", "L", "LA", "F") or image.mode.startswith("I")
        is_wide = is_wide_grey(image)
        return {"format": str(image.format), "is_grey": is_grey, "is_wide": is_wide, "oddities": oddities}


def _oddities(image: "Image.Image", content: bytes) -> list[str]:
    """Describes what is unusual about an image that decodes, and how it is read."""
    found = []
    if has_wide_pixels(image, content):
        found.append("more than 8 bits per channel, of which 8 are read")
    if image.mode == "CMYK":
        found.append("CMYK, converted without a colour profile")
    if getattr(image, "is_animated", False) and image.format != "MPO":
        found.append("several frames, of which only the first is read")
    if (orientation := exif_orientation(image)) is not None:
        found.append(f"turned by its EXIF tag (orientation {orientation}), which other programs may ignore")
    # Not every channel named A is alpha: in L*a*b* it is the colour from green to red.
    if image.has_transparency_data:
        alpha = image if "A" in image.getbands() else image.convert("RGBA")
        if np.asarray(alpha.getchannel("A")).min() < _OPAQUE:
            found.append(f"transparent parts ({image.mode}), read with their hidden colours")
    elif image.mode in ("P", "1"):
        found.append("palette" if image.mode == "P" else "black and white only")
    return found

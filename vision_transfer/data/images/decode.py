"""Decodes the bytes of an image file to pixels, within limits that a malicious file cannot exceed.

Pixels are those of TensorFlow's `decode_image(channels=3)`: alpha is dropped and not blended, 16 bits are reduced to
their upper 8, and an animation gives its first frame. Two things differ: EXIF rotation is applied, and JPEGs are
decoded with libjpeg's accurate DCT (as in Keras's `load_img`), not with the fast one as in TensorFlow.
"""

import io
import os
import stat
import threading
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

if TYPE_CHECKING:
    from PIL import Image

# Part of the cache's key: to be raised when the same bytes give other pixels.
DECODER_VERSION = 1
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF")
MAX_FILE_BYTES = 100 * 2**20
# Above the largest phone sensors in common use (108 megapixels); as RGB 360 MB.
MAX_PIXELS = 120_000_000
# A progressive JPEG decodes all its pixels once per scan: usually about 10 times, but a small file can have many scans.
MAX_SCANNED_PIXELS = 4_000_000_000
# Larger images are decoded one at a time, so that memory does not grow with the number of cores.
LARGE_PIXELS = 16_000_000
_START_OF_SCAN = b"\xff\xda"
_EXIF_ORIENTATION = 0x0112
_MAX_REASON_LENGTH = 200
_one_large_image = threading.Lock()


class UndecodableError(Exception):
    """A file or record cannot be decoded; the message is the reason shown to the user."""


def decoder_version() -> str:
    """The versions of this module and of Pillow, which may change the pixels decoded from given bytes."""
    import PIL

    return f"{DECODER_VERSION}/pillow-{PIL.__version__}"


def read_file(path: Path) -> bytes:
    """The bytes of a regular, non-empty file of at most `MAX_FILE_BYTES`; never waits on a FIFO or device.

    Raises:
        UndecodableError: it is not such a file, or cannot be read.
    """
    try:
        # Checked before it is opened, since opening alone can start a device; and after, since it may have changed
        # in between.
        _check_file(path.stat())
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        with open(os.open(path, flags), "rb") as file:  # noqa: PTH123 (Path.open takes no descriptor)
            _check_file(os.fstat(file.fileno()))
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise UndecodableError(f"cannot be read: {error.strerror or type(error).__name__}") from None
    if len(content) > MAX_FILE_BYTES:
        raise UndecodableError(f"over {MAX_FILE_BYTES:,} bytes, the limit for one image file")
    return content


def decode_image(content: bytes, channels: int) -> UInt8[np.ndarray, "height width channels"]:
    """Decodes an image file's bytes to RGB (`channels` 3) or grey (1), upright by its EXIF tag.

    Raises:
        UndecodableError: not an image, damaged, too large, or of a kind without 8-bit values.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            _check_pixels(image, content)
            with _one_large_image if image.width * image.height > LARGE_PIXELS else nullcontext():
                image.load()
                upright = _upright(_eight_bits(image).convert("RGB" if channels == 3 else "L"), exif_orientation(image))
                return np.asarray(upright).reshape(upright.height, upright.width, channels)
    except UndecodableError:
        raise
    except UnidentifiedImageError:
        raise UndecodableError(f"not an image ({', '.join(FORMATS)}) or its header is damaged") from None
    except MemoryError:
        raise UndecodableError("too large for this machine's memory") from None
    except Exception as error:  # Pillow's plugins may raise anything on damaged bytes.
        reason = f"does not decode: {type(error).__name__}: {error}"
        raise UndecodableError(" ".join(reason.split())[:_MAX_REASON_LENGTH]) from None


def decode_file(path: Path, channels: int) -> UInt8[np.ndarray, "height width channels"]:
    """`decode_image` of a file's content."""
    return decode_image(read_file(path), channels)


def _check_file(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise UndecodableError("not a regular file")
    if status.st_size == 0:
        raise UndecodableError("empty file")
    if status.st_size > MAX_FILE_BYTES:
        raise UndecodableError(f"{status.st_size:,} bytes; the limit for one image file is {MAX_FILE_BYTES:,}")


def _check_pixels(image: "Image.Image", content: bytes) -> None:
    """Rejects an image whose decoding would take too much memory or time, before it is decoded."""
    pixels = image.width * image.height
    if pixels > MAX_PIXELS:
        raise UndecodableError(f"declares {image.width} x {image.height} pixels; the limit is {MAX_PIXELS:,}")
    scans = content.count(_START_OF_SCAN) if image.format in ("JPEG", "MPO") else 1
    if pixels * scans > MAX_SCANNED_PIXELS:
        raise UndecodableError(
            f"a JPEG of {image.width} x {image.height} pixels in {scans:,} scans: too long to decode"
        )


def _eight_bits(image: "Image.Image") -> "Image.Image":
    """Reduces 16-bit grey to its upper 8 bits; other modes are such that Pillow converts them to RGB or grey."""
    from PIL import Image

    if image.mode == "F":
        raise UndecodableError("floating-point pixels, whose range is unknown: save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        values = np.clip(np.asarray(image).astype(np.int64), 0, 2**16 - 1)
        return Image.fromarray((values >> 8).astype(np.uint8))
    # Converting directly gives the same pixels, but also a warning.
    return image.convert("RGBA") if image.mode == "P" and "transparency" in image.info else image


def exif_orientation(image: "Image.Image") -> object:
    """The EXIF orientation tag of an open image, or None if there is no readable one."""
    try:
        return image.getexif().get(_EXIF_ORIENTATION)
    except Exception:  # Damaged EXIF data may raise anything, and the pixels are good without it.
        return None


def _upright(image: "Image.Image", orientation: object) -> "Image.Image":
    """Undoes the rotation or reflection given by an EXIF orientation (2 to 8)."""
    from PIL.Image import Transpose

    undo = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    method = undo.get(orientation) if isinstance(orientation, int) else None
    return image if method is None else image.transpose(method)

"""Decodes the bytes of an image file to pixels, within limits that a malicious file cannot exceed.

Pixels are those of TensorFlow's `decode_image(channels=3)`: alpha is dropped and not blended, 16 bits are reduced to
their upper 8 unless a range of values is given, and an animation gives its first frame. Two things differ: EXIF
rotation is applied, and JPEGs are decoded with libjpeg's accurate DCT (as in Keras's `load_img`), not with the fast one
as in TensorFlow.
"""

import errno
import io
import os
import re
import stat
import threading
from collections.abc import Callable
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from vision_transfer.data.images.recognise import HEAD_BYTES, formats_read, is_image, what_it_is
from vision_transfer.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

# Part of the cache's key: to be raised when the same bytes give other pixels.
DECODER_VERSION = 3
MAX_FILE_BYTES = 100 * 2**20
# Above the largest phone sensors in common use (108 megapixels); as RGB 360 MB.
MAX_PIXELS = 120_000_000
# A progressive JPEG decodes all its pixels once per scan: usually about 10 times, but a small file can have many scans.
MAX_SCANNED_PIXELS = 4_000_000_000
# Larger images are decoded one at a time, so that memory does not grow with the number of cores.
LARGE_PIXELS = 16_000_000
_START_OF_SCAN = b"\xff\xda"
_EXIF_ORIENTATION = 0x0112
# Orientations other than upright; anything else in the tag means nothing.
_TURNED = range(2, 9)
# What is wrong with a file itself. Any other error is the system's (no descriptors or memory left, a failing disk, a
# network that went away): the file may be sound, so leaving it out would change the data silently.
_OF_THE_FILE = frozenset(
    (
        *(errno.ENOENT, errno.EACCES, errno.EPERM, errno.ELOOP, errno.EISDIR, errno.ENOTDIR, errno.ENXIO),
        *(errno.ENAMETOOLONG, errno.EINVAL, errno.EOPNOTSUPP, errno.EOVERFLOW, errno.ENODEV),
    )
)
# The largest value of 16 bits, of which the upper 8 are read where no range is given.
_LARGEST_WIDE = 2**16 - 1
_MAX_REASON_LENGTH = 200
# Position of the number of bits per channel in a PNG's header, and its tag in a TIFF.
_PNG_DEPTH_AT = 24
_TIFF_BITS_PER_SAMPLE = 258
# The meaning of grey values in a TIFF, and that of X-rays and scans in which 0 is white.
_TIFF_PHOTOMETRIC, _TIFF_WHITE_IS_ZERO = 262, 0
# Magic number, width and height of a PGM or PPM file, and its largest value; comments may be in between.
_PNM_GAP = rb"(?:\s|#[^\n]*\n)+"
_PNM_HEADER = re.compile(rb"P[2356]" + 2 * (_PNM_GAP + rb"\d{1,9}") + _PNM_GAP + rb"(\d{1,5})\s")
_LARGEST_BYTE = 255
_one_large_image = threading.Lock()


class UndecodableError(Exception):
    """A file or record cannot be decoded; the message is the reason shown to the user."""


def decoder_version() -> str:
    """The versions of this module, of Pillow, and of its plugin for HEIF, which change what given bytes decode to."""
    import PIL

    found = f"{DECODER_VERSION}/pillow-{PIL.__version__}"
    return f"{found}/pillow-heif-{version('pillow-heif')}" if "HEIF" in formats_read() else found


def read_image_file(path: Path) -> bytes:
    """`read_file` of an image; of any other file only the first bytes are read.

    Raises:
        UndecodableError: the file is not an image by its first bytes, or cannot be read.
        UserError: the system cannot read files now.
    """
    return read_file(path, _check_image)


def read_file(
    path: Path, check_head: Callable[[bytes], None] = lambda head: None, *, most: int = MAX_FILE_BYTES
) -> bytes:
    """The bytes of a regular, non-empty file of at most `most` bytes; never waits on a FIFO or device.

    `check_head` is called with the first bytes, and raises an error if the rest need not be read.

    Raises:
        UndecodableError: it is not such a file, or cannot be read.
        UserError: the system cannot read files now.
    """
    try:
        # Checked before it is opened, since opening alone can start a device; and after, since it may have changed
        # in between.
        _check_file(path.stat())
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        with open(os.open(path, flags), "rb") as file:  # noqa: PTH123 (Path.open takes no descriptor)
            _check_file(os.fstat(file.fileno()))
            head = file.read(HEAD_BYTES)
            check_head(head)
            content = head + file.read(most + 1 - len(head))
    except OSError as error:
        raise UndecodableError(why_unreadable(path, error)) from None
    if len(content) > most:
        raise UndecodableError(f"over {most:,} bytes, the limit for one file")
    return content


def why_unreadable(path: Path, error: OSError) -> str:
    """Why a file or folder cannot be read, where the reason lies in itself, so that it may be left out.

    Raises:
        UserError: the system cannot read files now.
    """
    reason = error.strerror or type(error).__name__
    if error.errno in _OF_THE_FILE:
        return f"cannot be read: {reason}"
    raise UserError(
        f"{path}: this machine could not read it ({reason}). It may be sound, so it is not left out: fix this and run "
        "the same command again."
    ) from error


def decode_image(
    content: bytes, channels: int, value_range: tuple[float, ...] = ()
) -> UInt8[np.ndarray, "height width channels"]:
    """Decodes an image file's bytes to RGB (`channels` 3) or grey (1), upright by its EXIF tag.

    `value_range` has the values that become 0 and 255 in grey files of more than 8 bits (255 and 0 in a TIFF file in
    which 0 is white); values beyond are clipped. Without it, the upper 8 of 16 bits are read.

    Raises:
        UndecodableError: not an image, damaged, too large, or of a kind without 8-bit values.
        UserError: there is not enough memory to decode it now.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content), formats=formats_read()) as image:
            _check_pixels(image, content)
            with _one_large_image if image.width * image.height > LARGE_PIXELS else nullcontext():
                image.load()
                small = _eight_bits(image, content, value_range)
                upright = _upright(_converted(small, channels), exif_orientation(image))
                return np.asarray(upright).reshape(upright.height, upright.width, channels)
    except UndecodableError:
        raise
    except UnidentifiedImageError:
        raise UndecodableError(_unidentified(content[:HEAD_BYTES])) from None
    except MemoryError as error:
        raise UserError(
            "there is not enough memory to decode an image. It may be sound, so it is not left out: free some memory, "
            "and run the same command again."
        ) from error
    except Exception as error:  # Pillow's plugins may raise anything on damaged bytes.
        reason = f"does not decode: {type(error).__name__}: {error}"
        raise UndecodableError(" ".join(reason.split())[:_MAX_REASON_LENGTH]) from None


def decode_file(
    path: Path, channels: int, value_range: tuple[float, ...] = ()
) -> UInt8[np.ndarray, "height width channels"]:
    """`decode_image` of a file's content."""
    return decode_image(read_image_file(path), channels, value_range)


def wide_values(content: bytes) -> tuple[float, float] | None:
    """The smallest and largest value in a grey file of more than 8 bits, before they are reduced; otherwise None."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content), formats=formats_read()) as image:
            _check_pixels(image, content)
            if not is_wide_grey(image):
                return None
            values = _own_values(image, content)
            return float(values.min()), float(values.max())
    except MemoryError:  # says nothing about the file
        raise
    except Exception:  # Pillow's plugins may raise anything on damaged bytes.
        return None


def _check_image(head: bytes) -> None:
    if head and not is_image(head):
        raise UndecodableError(what_it_is(head))


def _unidentified(head: bytes) -> str:
    """Why Pillow takes a file for no image."""
    what = what_it_is(head)
    return f"{what}, or its header is damaged" if is_image(head) and " but " not in what else what


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


def is_wide_grey(image: "Image.Image") -> bool:
    """Whether an open image is grey with more than 8 bits, so that `value_range` applies to it."""
    return image.mode == "F" or image.mode.startswith("I")


def _eight_bits(image: "Image.Image", content: bytes, value_range: tuple[float, ...]) -> "Image.Image":
    """Reduces grey of more than 8 bits to 8; other modes are such that Pillow converts them to RGB or grey."""
    from PIL import Image

    if is_wide_grey(image):
        small = _reduced(_own_values(image, content) if value_range else np.asarray(image), value_range)
        # Pillow turns these round in files of 8 bits only.
        white_is_zero = getattr(image, "tag_v2", {}).get(_TIFF_PHOTOMETRIC) == _TIFF_WHITE_IS_ZERO
        return Image.fromarray(255 - small if white_is_zero and image.mode != "F" else small)
    if value_range and _has_wide_colours(image, content):
        raise UndecodableError(
            "16 bits with colours or transparency, which value_range cannot be applied to: save it with 8 bits"
        )
    # Converting directly gives the same pixels, but also a warning.
    return image.convert("RGBA") if image.mode == "P" and "transparency" in image.info else image


def _own_values(image: "Image.Image", content: bytes) -> np.ndarray:
    """The values in a grey file of more than 8 bits. Pillow scales those of a PGM file to 16 bits."""
    values = np.asarray(image)
    largest = _largest_of_pnm(content) if image.format == "PPM" else None
    return values if largest is None else np.rint(values * (largest / _LARGEST_WIDE)).astype(values.dtype)


def _largest_of_pnm(content: bytes) -> int | None:
    """The largest value that a PGM or PPM file declares, white; None for a file without it."""
    header = _PNM_HEADER.match(content)
    return int(header[1]) if header else None


def _reduced(values: np.ndarray, value_range: tuple[float, ...]) -> UInt8[np.ndarray, "height width"]:
    """Values of more than 8 bits as 8 bits: the range, or the upper 8 of 16 bits."""
    if value_range:
        low, high = value_range
        shares = (values.astype(np.float64) - low) / (high - low)
        if np.isnan(shares).any():
            raise UndecodableError("has pixels that are not a number (NaN)")
        return np.rint(255 * np.clip(shares, 0, 1)).astype(np.uint8)
    if values.dtype.kind == "f":
        raise UndecodableError(
            "floating-point pixels, whose range is unknown: save it with 8 or 16 bits, or give their range in "
            "--config.dataset.value_range=0,1"
        )
    if values.max(initial=0) > _LARGEST_WIDE:
        raise UndecodableError(
            f"values up to {int(values.max()):,}, more than 16 bits hold: save it with 8 or 16 bits, or give their "
            "range in --config.dataset.value_range=0,100000"
        )
    return (np.maximum(values.astype(np.int64), 0) >> 8).astype(np.uint8)


def _has_wide_colours(image: "Image.Image", content: bytes) -> bool:
    """Whether an image in colour has 16 bits per channel, of which Pillow keeps the upper 8."""
    if image.format == "PNG":
        return content[_PNG_DEPTH_AT] > 8
    if image.format == "PPM":
        return (_largest_of_pnm(content) or 0) > _LARGEST_BYTE
    bits = getattr(image, "tag_v2", {}).get(_TIFF_BITS_PER_SAMPLE, (8,))
    return max(bits if isinstance(bits, tuple) else (bits,)) > 8


def _converted(image: "Image.Image", channels: int) -> "Image.Image":
    """The image as RGB or grey; what cannot become grey directly (L*a*b*) goes through RGB, so that both work."""
    if channels == 1 and image.mode == "LAB":
        image = image.convert("RGB")
    return image.convert("RGB" if channels == 3 else "L")


def exif_orientation(image: "Image.Image") -> int | None:
    """The EXIF orientation by which an open image is turned (2 to 8); None for one that stays as it is."""
    try:
        orientation = image.getexif().get(_EXIF_ORIENTATION)
    except Exception:  # Damaged EXIF data may raise anything, and the pixels are good without it.
        return None
    return orientation if isinstance(orientation, int) and orientation in _TURNED else None


def has_wide_pixels(image: "Image.Image", content: bytes) -> bool:
    """Whether an open image has more than 8 bits per channel."""
    return is_wide_grey(image) or _has_wide_colours(image, content)


def _upright(image: "Image.Image", orientation: int | None) -> "Image.Image":
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
    return image if orientation is None else image.transpose(undo[orientation])

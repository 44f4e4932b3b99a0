"""Tells from the first bytes of a file whether it is an image of a format that is read, or what it is instead."""

import re
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec

# Pillow's names. AVIF and JPEG 2000 are read where Pillow was built with them, HEIF with the package pillow-heif.
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM", "AVIF", "JPEG2000", "HEIF")
# Enough for every signature below; the last one is at byte 128.
HEAD_BYTES = 512
# Endings that say that a file is meant to be an image, in lower case.
SUFFIXES = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"),
        *(".pnm", ".avif", ".jp2", ".j2k", ".heic", ".heif"),
    )
)
# Endings of archives, in lower case.
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".7z", ".rar", ".gz")
# Pillow's plugins decide by this many bytes.
_PREFIX_BYTES = 16
_CONVERT = "convert it to JPEG or PNG"
# Signatures of what people have among their images: (pattern from the first byte on, what it is and what to do).
_OTHERS = tuple(
    (re.compile(pattern, re.DOTALL | re.IGNORECASE), what)
    for pattern, what in (
        (rb"\0+\Z", "only zero bytes, as after an interrupted download or copy: get it again"),
        (rb"version https://git-lfs", "a pointer of Git LFS: `git lfs pull` gets the file itself"),
        (rb"\s*(\xef\xbb\xbf)?\s*(<!doctype html|<html)", "an HTML page, as a failed download leaves it: get it again"),
        (rb"\s*(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?<svg", f"an SVG drawing: {_CONVERT}"),
        (rb"(PK\x03\x04|PK\x05\x06|Rar!|7z\xbc\xaf|\x1f\x8b|BZh|\xfd7zXZ)", "an archive: unpack it"),
        (rb"%PDF", f"a PDF document: {_CONVERT}"),
        (rb"%!PS|\xc5\xd0\xd3\xc6", f"a PostScript drawing: {_CONVERT}"),
        (rb"8BPS", f"a Photoshop document: {_CONVERT}"),
        (rb"gimp xcf", f"a GIMP document: {_CONVERT}"),
        (rb"\xff\x0a|\0\0\0\x0cJXL ", f"a JPEG XL image: {_CONVERT}"),
        (rb"\0\0\x01\0", f"an icon: {_CONVERT}"),
        (rb"qoif", f"a QOI image: {_CONVERT}"),
        (rb"FUJIFILMCCD-RAW|IIU\0|....ftypcrx |\0MRM", f"a camera's raw image: {_CONVERT}"),
        (
            rb"....ftyp(hei|hev|mif1|msf1)",
            "a HEIC photo: `pip install pillow-heif` (the extra [heic]) to read it, or " + _CONVERT,
        ),
        (rb"....ftypavi", "an AVIF image, which this Pillow cannot read: install a newer one, or " + _CONVERT),
        (rb"....ftyp|....(moov|mdat)|\x1aE\xdf\xa3|RIFF....AVI", "a film: extract its frames as images"),
        (rb".{128}DICM", f"a DICOM file: {_CONVERT}"),
        (rb"SIMPLE  =", f"a FITS file: {_CONVERT}"),
        (rb"\x93NUMPY", "a NumPy array: --config.dataset.name=npz reads arrays"),
        (rb"\x89HDF", "an HDF5 file: save its images as files, or as a .npz"),
        (rb"\s*[\[{]", "a JSON text"),
    )
)


def is_image(head: bytes) -> bool:
    """Whether a file that starts with these bytes is of a format that is read; it may still be damaged."""
    prefix = head[:_PREFIX_BYTES]
    return any(accept(prefix) is True for accept in _accepting())


def formats_read() -> tuple[str, ...]:
    """The names of all formats that can be read here."""
    from PIL import Image

    _accepting()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def what_it_is(head: bytes) -> str:
    """The kind of a file that is no readable image, for a message: `an HTML page, …`."""
    found = next((what for pattern, what in _OTHERS if pattern.match(head)), None)
    if found:
        return f"not an image but {found}"
    text = "a text" if _is_text(head) else f"none of {', '.join(formats_read())}"
    return f"not an image ({text})"


@cache
def _accepting() -> tuple[Callable[[bytes], bool | str], ...]:
    """Pillow's own tests of a file's first bytes, for the formats of `FORMATS` that are here."""
    from PIL import Image

    Image.init()
    if find_spec("pillow_heif") is not None:
        import pillow_heif  # pyright: ignore[reportMissingImports]

        pillow_heif.register_heif_opener()
    return tuple(accept for name in FORMATS if (accept := Image.OPEN.get(name, (None, None))[1]) is not None)


def _is_text(head: bytes) -> bool:
    return bool(head) and all(byte >= 0x20 or byte in b"\t\n\r\f" for byte in head)

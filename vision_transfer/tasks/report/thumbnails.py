"""Images as data URIs, small enough for many of them to stand in one page."""

import base64
import io

import numpy as np
from jaxtyping import UInt8

# Longest side in pixels; shown at about half of it, so that it is sharp on a phone.
LONGEST_SIDE = 208
# Images below this size are enlarged by whole pixels and kept exact; JPEG would smear them.
SMALLEST_SIDE = 64
JPEG_QUALITY = 78


def shrunk(image: UInt8[np.ndarray, "height width channels"]) -> UInt8[np.ndarray, "new_height new_width channels"]:
    """The image with its longest side at most `LONGEST_SIDE`; a tiny one is enlarged by a whole factor."""
    from PIL import Image

    height, width, channels = image.shape
    if max(height, width) < SMALLEST_SIDE:
        factor = LONGEST_SIDE // max(height, width)
        return image.repeat(factor, axis=0).repeat(factor, axis=1)
    pillow = Image.fromarray(image[:, :, 0] if channels == 1 else image)
    pillow.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    return np.asarray(pillow).reshape(pillow.height, pillow.width, channels)


def data_uri(image: UInt8[np.ndarray, "height width channels"], *, exact: bool = False) -> str:
    """The image as `data:image/…`: a PNG where it must stay exact, a JPEG otherwise."""
    from PIL import Image

    pillow = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
    stream = io.BytesIO()
    if exact:
        pillow.save(stream, "PNG", optimize=True)
    else:
        pillow.save(stream, "JPEG", quality=JPEG_QUALITY, optimize=True)
    kind = "png" if exact else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"


def is_tiny(image: UInt8[np.ndarray, "height width channels"]) -> bool:
    """Whether `shrunk` enlarges it, so that its pixels are to be seen as such."""
    return max(image.shape[:2]) < SMALLEST_SIDE

"""Makes `decode.npz` and `resize.npz` here by running TensorFlow; only the numbers it writes are needed by the tests.

    python make_decode_reference.py RESIZE_NPZ

RESIZE_NPZ holds photos resized by TensorFlow and by Keras's `load_img` (bilinear_SIZE_I, nearest_SIZE_I); of those only
single pixels are kept, since the photos themselves may not be passed on.
Made with TensorFlow 2.21.0 and Pillow 13.0.0. The files inside decode.npz are noise; nobody's picture.
"""

import io
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

HERE = Path(__file__).parent
SHAPE = (9, 12)
# (height, width) -> size: enlarging, shrinking, odd ratios, a single pixel.
RESIZES = [((7, 5), 11), ((13, 29), 8), ((59, 45), 36), ((1, 1), 3), ((24, 31), 31), ((8, 8), 48)]
STRIDE = 29


def saved(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def files(rng: np.random.Generator) -> dict[str, bytes]:
    """Small images of every kind that TensorFlow decodes."""

    def noise(*shape, dtype=np.uint8):
        return rng.integers(0, np.iinfo(dtype).max, (*SHAPE, *shape), dtype=dtype, endpoint=True)

    palette = Image.fromarray(noise(3)).quantize(16)
    coloured = np.kron(rng.integers(0, 255, (2, 2, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8))
    return {
        "rgb.png": saved(Image.fromarray(noise(3)), "PNG"),
        "rgba.png": saved(Image.fromarray(noise(4)), "PNG"),
        "grey.png": saved(Image.fromarray(noise()), "PNG"),
        "grey_alpha.png": saved(Image.fromarray(noise(2)), "PNG"),
        "bits.png": saved(Image.fromarray(noise()).convert("1"), "PNG"),
        "palette.png": saved(palette, "PNG"),
        "palette_transparent_colour.png": saved(palette, "PNG", transparency=3),
        "palette_alpha.png": saved(palette, "PNG", transparency=bytes(range(0, 256, 16))),
        "grey16.png": tf.io.encode_png(noise(1, dtype=np.uint16)).numpy(),
        "grey_alpha16.png": tf.io.encode_png(noise(2, dtype=np.uint16)).numpy(),
        "rgb16.png": tf.io.encode_png(noise(3, dtype=np.uint16)).numpy(),
        "rgba16.png": tf.io.encode_png(noise(4, dtype=np.uint16)).numpy(),
        "rgb.bmp": saved(Image.fromarray(noise(3)), "BMP"),
        "grey.bmp": saved(Image.fromarray(noise()), "BMP"),
        "animated.gif": saved(palette, "GIF", save_all=True, append_images=[Image.fromarray(noise(3)).quantize(16)]),
        # Of one colour in each 8x8 block: then the accurate and the fast DCT agree.
        "blocks.jpg": saved(Image.fromarray(coloured), "JPEG", quality=100, subsampling=0),
        "grey_blocks.jpg": saved(Image.fromarray(coloured[..., 0]), "JPEG", quality=100),
        "cmyk_blocks.jpg": saved(Image.fromarray(coloured).convert("CMYK"), "JPEG", quality=100, subsampling=0),
    }


def decode_reference() -> dict[str, np.ndarray]:
    out = {}
    for name, content in files(np.random.default_rng(0)).items():
        out[f"file_{name}"] = np.frombuffer(content, np.uint8)
        out[f"rgb_{name}"] = tf.io.decode_image(content, channels=3, expand_animations=False).numpy()
    return out


def resize_reference(photos: Path) -> dict[str, np.ndarray]:
    out = {}
    rng = np.random.default_rng(1)
    for index, ((height, width), size) in enumerate(RESIZES):
        image = rng.integers(0, 255, (height, width, 3), dtype=np.uint8, endpoint=True)
        out[f"image_{index}"] = image
        out[f"bilinear_{index}"] = tf.image.resize(image, (size, size), method="bilinear").numpy()
    whole = np.load(photos)
    for name in whole.files:
        out[f"photo_{name}"] = whole[name] if name == "photos" else whole[name][::STRIDE, ::STRIDE]
    return out


if __name__ == "__main__":
    np.savez_compressed(HERE / "decode.npz", **decode_reference())
    np.savez_compressed(HERE / "resize.npz", **resize_reference(Path(sys.argv[1])))

"""Formats told from a file's first bytes, and what other files are called."""

import io

import numpy as np
import pytest
from PIL import Image, features

from vision_transfer.data.images.decode import UndecodableError, decode_image, read_image_file
from vision_transfer.data.images.recognise import FORMATS, formats_read, is_image, what_it_is

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 17, 3), dtype=np.uint8)


def saved(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize("kind", [kind for kind in FORMATS if kind != "HEIF"])
def test_every_format_is_recognised_and_decodes_as_pillow_does(kind):
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    content = saved(Image.fromarray(PIXELS), kind)
    assert is_image(content[:512])
    assert kind in formats_read()
    with Image.open(io.BytesIO(content)) as image:
        np.testing.assert_array_equal(decode_image(content, 3), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("kind", ["PPM", "JPEG2000", "AVIF"])
def test_lossless_ones_come_back_as_they_were(kind):
    options = {"PPM": {}, "JPEG2000": {"irreversible": False}, "AVIF": {"quality": 100, "subsampling": "4:4:4"}}[kind]
    content = saved(Image.fromarray(PIXELS), kind, **options)
    # AVIF converts colours on the way
    np.testing.assert_allclose(decode_image(content, 3), PIXELS, atol=4 if kind == "AVIF" else 0)


def test_grey_ppm_of_8_and_16_bits():
    grey = PIXELS[..., 0]
    np.testing.assert_array_equal(decode_image(b"P5 17 12 255\n" + grey.tobytes(), 1)[..., 0], grey)
    wide = grey.astype(np.uint16) * 257
    np.testing.assert_array_equal(decode_image(b"P5 17 12 65535\n" + wide.astype(">u2").tobytes(), 1)[..., 0], grey)


@pytest.mark.parametrize(
    ("head", "what"),
    [
        (b"<!DOCTYPE html><html>", "HTML page"),
        (b"\n  <html lang=en>", "HTML page"),
        (b"\xef\xbb\xbf<?xml version='1.0'?><svg xmlns=", "SVG drawing"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS"),
        (bytes(512), "only zero bytes"),
        (b"PK\x03\x04", "an archive"),
        (b"%PDF-1.7", "PDF"),
        (b"8BPS\0\1", "Photoshop"),
        (b"\0\0\0\x18ftypheic\0\0", "HEIC photo: `pip install pillow-heif`"),
        (b"\0\0\0\x18ftypmp42", "a film"),
        (b"\0\0\0\x18ftypcrx ", "raw image"),
        (b"\0\0\0\x0cJXL \r\n", "JPEG XL"),
        (bytes(128) + b"DICM", "DICOM"),
        (b"\x93NUMPY\1\0", "NumPy array"),
        (b'{"a": 1}', "JSON"),
        (b"some notes", "a text"),
        (b"\x01\x02\x03\x04", "none of JPEG, PNG, BMP"),
    ],
)
def test_what_is_no_image_is_called_by_its_name(head, what, tmp_path):
    assert what in what_it_is(head)
    (tmp_path / "photo.jpg").write_bytes(head)
    with pytest.raises(UndecodableError, match="not an image"):
        read_image_file(tmp_path / "photo.jpg")


def test_of_what_is_no_image_only_the_start_is_read(tmp_path):
    file = tmp_path / "film.mp4"
    with file.open("wb") as stream:
        stream.write(b"\0\0\0\x18ftypmp42")
        stream.truncate(90 * 2**20)
    with pytest.raises(UndecodableError, match="a film"):
        read_image_file(file)


def test_heic_through_pillow_heif():
    heif = pytest.importorskip("pillow_heif")
    stream = io.BytesIO()
    heif.from_bytes("RGB", (64, 48), np.full((48, 64, 3), 77, np.uint8).tobytes()).save(stream, quality=95)
    np.testing.assert_allclose(decode_image(stream.getvalue(), 3), np.full((48, 64, 3), 77), atol=3)

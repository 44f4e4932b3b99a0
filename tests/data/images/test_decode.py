"""Decoding against TensorFlow's decoder, and every kind of file that must not do harm."""

import errno
import io
import os
import re
import struct
import threading
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vision_transfer.data.images import decode
from vision_transfer.data.images.decode import UndecodableError, decode_file, decode_image, read_file
from vision_transfer.errors import UserError

DECODED = np.load(Path(__file__).parents[2] / "reference" / "decode.npz")
NAMES = sorted(key.removeprefix("file_") for key in DECODED.files if key.startswith("file_"))


def saved(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def noise(*shape):
    return np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)


def png_chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_declaring(width, height):
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(bytes(1000)))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("error")
def test_pixels_are_tensorflows(name):
    np.testing.assert_array_equal(decode_image(DECODED[f"file_{name}"].tobytes(), 3), DECODED[f"rgb_{name}"])


@pytest.mark.parametrize("name", NAMES)
def test_grey_is_the_luminance_of_the_colours(name):
    grey = decode_image(DECODED[f"file_{name}"].tobytes(), 1)
    expected = DECODED[f"rgb_{name}"] @ np.array([0.299, 0.587, 0.114])
    assert grey.shape == (*expected.shape, 1)
    # Conversions of two kinds: exactly equal for grey files, rounded (twice for CMYK) for coloured ones.
    np.testing.assert_allclose(grey[..., 0], expected, atol=2)


@pytest.mark.parametrize("kind", ["WEBP", "TIFF", "BMP", "PNG"])
def test_lossless_kinds_come_back_as_they_were(kind):
    pixels = noise(11, 7, 3)
    options = {"lossless": True} if kind == "WEBP" else {}
    np.testing.assert_array_equal(decode_image(saved(Image.fromarray(pixels), kind, **options), 3), pixels)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_an_animation_the_first_frame_counts(kind):
    first, second = Image.new("RGB", (8, 6), (250, 0, 0)), Image.new("RGB", (8, 6), (0, 0, 250))
    pixels = decode_image(saved(first, kind, save_all=True, append_images=[second]), 3)
    assert pixels.shape == (6, 8, 3)
    np.testing.assert_allclose(pixels, np.broadcast_to([250, 0, 0], (6, 8, 3)), atol=8)


# What the EXIF standard (JEITA CP-3451, "Orientation") says stands at the top and at the left of the stored picture.
UNDONE = {
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.transpose(1, 0, 2),
    6: lambda image: np.rot90(image, -1),
    7: lambda image: image[::-1, ::-1].transpose(1, 0, 2),
    8: lambda image: np.rot90(image),
    9: lambda image: image,
}


@pytest.mark.parametrize("orientation", UNDONE)
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_exif_rotation_is_applied(orientation, kind):
    pixels = noise(5, 8, 3)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    content = saved(Image.fromarray(pixels), kind, exif=exif, **options)
    np.testing.assert_array_equal(decode_image(content, 3), UNDONE[orientation](pixels))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("exif", [b"", b"Exif\0\0", b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", bytes(50)])
def test_damaged_exif_does_no_harm(exif):
    pixels = noise(5, 8, 3)
    np.testing.assert_array_equal(decode_image(saved(Image.fromarray(pixels), "PNG", exif=exif), 3), pixels)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("width", "height"), [(50_000, 50_000), (12_001, 10_000), (2**31 - 1, 1)])
def test_bombs_are_refused_before_they_are_decoded(width, height):
    began = time.monotonic()
    with pytest.raises(UndecodableError, match=r"pixels|exceeds limit"):
        decode_image(png_declaring(width, height), 3)
    assert time.monotonic() - began < 1


def test_a_jpeg_of_many_scans_is_refused(monkeypatch):
    content = saved(Image.fromarray(noise(32, 32, 3)), "JPEG", progressive=True)
    scans = content.count(b"\xff\xda")
    assert scans > 5
    monkeypatch.setattr(decode, "MAX_SCANNED_PIXELS", 32 * 32 * scans)
    decode_image(content, 3)
    monkeypatch.setattr(decode, "MAX_SCANNED_PIXELS", 32 * 32 * scans - 1)
    with pytest.raises(UndecodableError, match=f"{scans} scans"):
        decode_image(content, 3)


def test_large_images_are_decoded_one_at_a_time(monkeypatch):
    monkeypatch.setattr(decode, "LARGE_PIXELS", 10)
    content = saved(Image.fromarray(noise(8, 8, 3)), "PNG")
    with decode._one_large_image:
        waiting = threading.Thread(target=decode_image, args=(content, 3))
        waiting.start()
        waiting.join(0.1)
        assert waiting.is_alive()
    waiting.join(5)
    assert not waiting.is_alive()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"hello, I am a text", "not an image"),
        (b"\xff\xd8\xff\xe0", "not an image"),
        (saved(Image.fromarray(noise(64, 64, 3)), "JPEG")[:900], "does not decode"),
        (saved(Image.fromarray(noise(64, 64, 3)), "PNG")[:900], "does not decode"),
        (b"GIF89a" + bytes(20), "not an image|does not decode"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
        (saved(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"), "floating-point"),
    ],
)
def test_what_is_no_image_says_why(content, reason):
    with pytest.raises(UndecodableError, match=reason) as raised:
        decode_image(content, 3)
    assert "0x" not in str(raised.value), "addresses in memory differ from run to run"


def test_no_prefix_of_a_file_gives_anything_but_pixels_or_a_reason():
    for name in ("rgb.png", "animated.gif", "blocks.jpg", "rgb.bmp"):
        content = DECODED[f"file_{name}"].tobytes()
        for length in range(0, len(content), max(1, len(content) // 40)):
            outcome_of(content[:length])


@pytest.mark.filterwarnings("ignore")
@given(st.sampled_from(NAMES), st.integers(0, 2**32 - 1), st.integers(1, 12), st.sampled_from([1, 3]))
@settings(max_examples=300, deadline=None)
def test_mutated_files_give_pixels_or_a_reason(name, seed, changes, channels):
    rng = np.random.default_rng(seed)
    content = DECODED[f"file_{name}"].copy()
    content[rng.integers(0, len(content), changes)] = rng.integers(0, 256, changes)
    outcome_of(content.tobytes(), channels)


def outcome_of(content, channels=3):
    try:
        pixels = decode_image(content, channels)
    except UndecodableError as reason:
        assert 0 < len(str(reason)) < 250
    else:
        assert pixels.dtype == np.uint8
        assert pixels.ndim == 3
        assert pixels.shape[2] == channels


def test_only_regular_files_are_read(tmp_path):
    fifo, folder, loop, gone = (tmp_path / name for name in ("fifo", "folder", "loop", "gone"))
    os.mkfifo(fifo)
    folder.mkdir()
    loop.symlink_to(loop)
    for path, reason in (
        (fifo, "not a regular"),
        (folder, "not a regular"),
        (loop, "cannot be read"),
        (gone, "No such"),
    ):
        with pytest.raises(UndecodableError, match=reason):
            read_file(path)
    with pytest.raises(UndecodableError, match="not a regular"):
        read_file(Path("/dev/zero"))


def test_empty_and_huge_files_are_refused(tmp_path, monkeypatch):
    empty, huge = tmp_path / "empty.jpg", tmp_path / "huge.jpg"
    empty.touch()
    with pytest.raises(UndecodableError, match="empty"):
        decode_file(empty, 3)
    with huge.open("wb") as file:
        file.truncate(200 * 2**20)  # Sparse: takes no space.
    with pytest.raises(UndecodableError, match=re.escape("209,715,200 bytes")):
        decode_file(huge, 3)


def test_a_file_without_permission_says_so(tmp_path, deny):
    path = tmp_path / "secret.png"
    path.write_bytes(saved(Image.fromarray(noise(4, 4, 3)), "PNG"))
    deny(path)
    with pytest.raises(UndecodableError, match="Permission denied"):
        read_file(path)


@pytest.mark.parametrize("mode", ["LAB", "RGB", "CMYK", "P", "1", "I;16", "LA", "RGBA", "YCbCr"])
def test_grey_and_colours_decode_the_same_files(mode):
    image = Image.fromarray(noise(6, 5).astype(np.uint16)) if mode == "I;16" else Image.new(mode, (5, 6))
    content = saved(image, "JPEG" if mode == "YCbCr" else "TIFF")
    assert decode_image(content, 1).shape == (6, 5, 1)
    assert decode_image(content, 3).shape == (6, 5, 3)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
@pytest.mark.parametrize("value_range", [(0.0, 255.0), (0.0, 4095.0), (-1000.0, 3000.0)])
def test_a_range_of_values_is_read_in_full(dtype, value_range):
    """Against the definition, in float64."""
    low, high = value_range
    values = np.linspace(max(low, 0) if dtype == np.uint16 else low, 1.1 * high, 63).reshape(7, 9).astype(dtype)
    expected = np.rint(np.clip((values.astype(np.float64) - low) / (high - low), 0, 1) * 255)
    kind = "PNG" if dtype == np.uint16 else "TIFF"
    found = decode_image(saved(Image.fromarray(values), kind), 1, value_range)
    np.testing.assert_array_equal(found[..., 0], expected)
    assert decode.wide_values(saved(Image.fromarray(values), kind)) == (values.min(), values.max())


@pytest.mark.parametrize("comment", [b"", b"# 12 bits\n"])
def test_the_range_of_a_pgm_file_is_of_its_own_values(comment):
    """Pillow scales them to 16 bits, by the largest value in the header."""
    values = np.linspace(0, 4095, 63).reshape(7, 9).astype(">u2")
    content = b"P5\n" + comment + b"9 7\n4095\n" + values.tobytes()
    expected = np.rint(np.clip(values / 2000, 0, 1) * 255)
    np.testing.assert_array_equal(decode_image(content, 1, (0.0, 2000.0))[..., 0], expected)
    assert decode.wide_values(content) == (0, 4095)
    assert decode_image(content, 1).max() == 255
    colours = b"P6\n3 7\n4095\n" + values.tobytes()
    with pytest.raises(UndecodableError, match="16 bits with colours"):
        decode_image(colours, 3, (0.0, 2000.0))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_zero_is_white_in_files_that_say_so(dtype):
    values = np.linspace(0, np.iinfo(dtype).max, 63).reshape(7, 9).astype(dtype)
    stream = io.BytesIO()
    # Pillow stores eight bits turned round, and sixteen as they are.
    Image.fromarray(np.iinfo(dtype).max - values if dtype == np.uint8 else values).save(
        stream, "TIFF", tiffinfo={262: 0}
    )
    found = decode_image(stream.getvalue(), 1)[..., 0]
    np.testing.assert_array_equal(found, 255 - (values >> (8 * values.itemsize - 8)).astype(np.uint8))
    if dtype == np.uint16:
        assert decode_image(stream.getvalue(), 1, (0.0, 65535.0))[0, 0] == 255


def test_a_range_of_values_does_not_touch_eight_bits():
    content = saved(Image.fromarray(noise(7, 9, 3)), "PNG")
    np.testing.assert_array_equal(decode_image(content, 3, (0.0, 4095.0)), noise(7, 9, 3))
    assert decode.wide_values(content) is None
    with pytest.raises(UndecodableError, match="value_range=0,1"):
        decode_image(saved(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"), 1)
    with pytest.raises(UndecodableError, match="NaN"):
        decode_image(saved(Image.fromarray(np.full((4, 4), np.nan, np.float32)), "TIFF"), 1, (0.0, 1.0))


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.ESTALE])
def test_an_error_of_the_system_does_not_leave_a_file_out(tmp_path, monkeypatch, number):
    """A sound file that cannot be read now is no damaged file."""

    def refused(*arguments, **options):
        raise OSError(number, os.strerror(number))

    file = tmp_path / "sound.png"
    file.write_bytes(saved(Image.fromarray(noise(4, 4, 3)), "PNG"))
    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(UserError, match="could not read it"):
        read_file(file)


def test_a_lack_of_memory_does_not_leave_a_file_out(monkeypatch):
    def refused(*arguments):
        raise MemoryError

    monkeypatch.setattr(decode, "_eight_bits", refused)
    with pytest.raises(UserError, match="not enough memory"):
        decode_image(saved(Image.fromarray(noise(4, 4, 3)), "PNG"), 3)


def test_more_than_sixteen_bits_need_a_range():
    content = saved(Image.fromarray(np.array([[0, 70_000], [200_000, 5]], np.int32)), "TIFF")
    with pytest.raises(UndecodableError, match=r"values up to 200,000.*value_range"):
        decode_image(content, 1)
    assert decode_image(content, 1, (0.0, 200_000.0)).max() == 255

"""Images, tables, folders, arrays and weights written elsewhere: any content leads to a value or a message."""

import contextlib
import gzip
import io
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.models.pretrained.conftest import write_keras_h5
from vision_transfer.data.formats.csv_file import csv_source
from vision_transfer.data.formats.folder import folder_source
from vision_transfer.data.formats.idx import idx_source
from vision_transfer.data.formats.image_files import display
from vision_transfer.data.formats.npz import npz_source
from vision_transfer.data.images.decode import UndecodableError, decode_image
from vision_transfer.data.images.recognise import HEAD_BYTES, formats_read, is_image, what_it_is
from vision_transfer.errors import UserError
from vision_transfer.models.pretrained.safetensors_file import write_safetensors
from vision_transfer.models.pretrained.weights_file import read_weights_file
from vision_transfer.predict.image_files import find_images
from vision_transfer.tasks.check.scan import inspected

SHAPES = {
    "block1_conv1": {"kernel": (3, 3, 3, 4), "bias": (4,)},
    "block2_conv1": {"kernel": (3, 3, 4, 5), "bias": (5,)},
}
IMAGE_KINDS = tuple(kind for kind in formats_read() if kind != "HEIF")
# The modes in which Pillow can write each kind, of those that cameras, scanners and programs use.
IMAGE_MODES = {
    "JPEG": ("RGB", "L", "CMYK"),
    "PNG": ("RGB", "L", "LA", "RGBA", "P", "1", "I;16"),
    "GIF": ("RGB", "P"),
    "BMP": ("RGB", "L", "1"),
    "WEBP": ("RGB", "RGBA"),
    "TIFF": ("RGB", "L", "CMYK", "LAB", "I;16", "I", "F", "1"),
    "PPM": ("RGB", "L", "1", "I"),
    "AVIF": ("RGB", "RGBA"),
    "JPEG2000": ("RGB", "L", "I;16"),
}
# Parts of names that people and systems have, and some that nobody should.
NAME_PARTS = (
    *("train", "Train", "val", "testing", "dev", "eval", "cat", "Cat", "cat ", "caf\u00e9", "cafe\u0301", "\u732b"),
    *("[1]", "*", "\x1b[31m", "a\nb", "$x$", "..x", "-rf", "#", "%20", "@eaDir", "__MACOSX", ".git", "Thumbs.db"),
    "\u202e",
)
RANGES = ((), (), (0.0, 255.0), (-1000.0, 3000.0))


def _params(random):
    return {
        layer: {name: random.normal(size=shape).astype(np.float32) for name, shape in parameters.items()}
        for layer, parameters in SHAPES.items()
    }


def _encoded(random, kind):
    pixels = random.integers(0, 256, (12, 17, 3), dtype=np.uint8)
    mode = IMAGE_MODES[kind][int(random.integers(0, len(IMAGE_MODES[kind])))]
    stream = io.BytesIO()
    if mode in ("I;16", "I", "F"):
        dtype = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
        image = Image.fromarray(random.integers(0, 2**12, (12, 17)).astype(dtype))
    else:
        image = Image.new("LAB", (17, 12), (100, 20, 30)) if mode == "LAB" else Image.fromarray(pixels).convert(mode)
    image.save(stream, kind)
    return stream.getvalue()


@pytest.mark.filterwarnings("ignore")
def test_images(cases, mutated):
    for random in cases(0.3):
        content = mutated(_encoded(random, IMAGE_KINDS[int(random.integers(0, len(IMAGE_KINDS)))]), random)
        channels, value_range = 1 + 2 * int(random.integers(0, 2)), RANGES[int(random.integers(0, len(RANGES)))]
        assert what_it_is(content[:HEAD_BYTES])
        try:
            pixels = decode_image(content, channels, value_range)
        except UndecodableError as reason:
            assert 0 < len(str(reason)) < 300
        else:
            assert is_image(content[:HEAD_BYTES]), "what decodes must be found"
            assert pixels.dtype == np.uint8
            assert pixels.shape[2] == channels
        scanned = _inspected_or_nothing(content)
        assert scanned is None or scanned["format"]


def _inspected_or_nothing(content):
    try:
        decode_image(content, 3)
    except UndecodableError:
        return None
    return inspected(content)


def test_tables(cases, mutated, tmp_path, quiet):
    for number in range(8):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(tmp_path / f"{number}.png")
    splits = ("train", "test")
    rows = [f"{number}.png,{'ab'[number % 2]},{splits[number > 3]}" for number in range(8)]
    whole, file = "\n".join(["path,label,split", *rows]).encode(), tmp_path / "table.csv"
    for random in cases(0.04):
        content = bytearray(mutated(whole, random))
        for part in random.choice(len(NAME_PARTS), int(random.integers(0, 3))):
            content[int(random.integers(0, len(content) + 1)) :] += NAME_PARTS[part].encode()
        file.write_bytes(content)
        _source_or_message(lambda: csv_source(file, quiet))


def test_folders(cases, tmp_path, quiet):
    """Trees of odd names with images, texts, links and empty folders."""
    image = io.BytesIO()
    Image.new("RGB", (4, 4), (9, 8, 7)).save(image, "PNG")
    root = tmp_path / "root"
    for random in cases(0.02):
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        for number in range(int(random.integers(2, 14))):
            parts = [NAME_PARTS[part] for part in random.choice(len(NAME_PARTS), int(random.integers(1, 4)))]
            with contextlib.suppress(FileExistsError, NotADirectoryError):
                root.joinpath(*parts[:-1]).mkdir(parents=True, exist_ok=True)
                file = root.joinpath(*parts[:-1], f"{number}{parts[-1]}")
                match int(random.integers(0, 6)):
                    case 0:
                        file.write_bytes(b"<html>")
                    case 1:
                        file.symlink_to(root)
                    case 2:
                        file.mkdir()
                    case _:
                        file.write_bytes(image.getvalue() + bytes([number]))
        _source_or_message(lambda: folder_source(root, quiet))
        for images in (str(root), f"{root}/*", f"{root}/**/[1]*"):
            with contextlib.suppress(UserError):
                assert all("\x1b" not in display(path) and "\n" not in display(path) for path in find_images(images))


def test_safetensors(cases, mutated, tmp_path):
    file = tmp_path / "weights.safetensors"
    write_safetensors(file, _params(np.random.default_rng(0)), {"preprocessing": "caffe"})
    _read_mutations(file, mutated, cases(0.15))


def test_onnx(cases, mutated, tmp_path):
    import onnx

    tensors = [
        onnx.numpy_helper.from_array(np.ascontiguousarray(values.transpose(3, 2, 0, 1)), f"{layer}_1/kernel")
        if name == "kernel"
        else onnx.numpy_helper.from_array(values, f"{layer}_1/bias")
        for layer, parameters in _params(np.random.default_rng(0)).items()
        for name, values in parameters.items()
    ]
    graph = onnx.helper.make_graph([], "g", [], [], tensors)
    file = tmp_path / "weights.onnx"
    onnx.save(onnx.helper.make_model(graph), file)
    _read_mutations(file, mutated, cases(0.15))


def test_keras_h5(cases, mutated, tmp_path):
    # Each file is listed in its own process.
    file = tmp_path / "weights.h5"
    write_keras_h5(file, _params(np.random.default_rng(0)))
    _read_mutations(file, mutated, cases(0.01))


def _read_mutations(file, mutated, generators):
    whole, expected = file.read_bytes(), read_weights_file(file, SHAPES).params
    for random in generators:
        file.write_bytes(mutated(whole, random))
        try:
            params = read_weights_file(file, SHAPES).params
        except UserError as message:
            assert file.name in str(message)
            continue
        for layer, parameters in SHAPES.items():
            for name in parameters:
                assert params[layer][name].shape == expected[layer][name].shape
                assert params[layer][name].dtype == np.float32


@pytest.mark.parametrize("compressed", [False, True])
def test_idx(cases, mutated, tmp_path, compressed):
    random = np.random.default_rng(0)
    suffix, pack = (".gz", gzip.compress) if compressed else ("", bytes)
    for split, count in (("train", 6), ("t10k", 4)):
        images = b"\0\0\x08\x03" + b"".join(int(n).to_bytes(4, "big") for n in (count, 5, 4)) + random.bytes(count * 20)
        labels = b"\0\0\x08\x01" + count.to_bytes(4, "big") + bytes(number % 2 for number in range(count))
        (tmp_path / f"{split}-images-idx3-ubyte{suffix}").write_bytes(pack(images))
        (tmp_path / f"{split}-labels-idx1-ubyte{suffix}").write_bytes(pack(labels))
    files = sorted(tmp_path.iterdir())
    for random in cases(0.05):
        file = files[int(random.integers(0, len(files)))]
        whole = file.read_bytes()
        file.write_bytes(mutated(whole, random))
        _source_or_message(lambda: idx_source(tmp_path, "digits"))
        file.write_bytes(whole)


def test_npz(cases, mutated, tmp_path):
    random, file = np.random.default_rng(0), tmp_path / "data.npz"
    arrays = {}
    for split, count in (("train", 6), ("test", 4)):
        arrays[f"x_{split}"] = random.integers(0, 256, (count, 5, 4, 3), dtype=np.uint8)
        arrays[f"y_{split}"] = np.arange(count) % 2
    np.savez_compressed(file, **arrays)
    whole = file.read_bytes()
    npz_source(file)
    for random in cases(0.08):
        file.write_bytes(mutated(whole, random))
        _source_or_message(lambda: npz_source(file))


def _source_or_message(read):
    try:
        source = read()
        for examples in source.splits.values():
            for index in range(len(examples.files)):
                with contextlib.suppress(UndecodableError):
                    assert examples.pixels(index, 3).dtype == np.uint8
        assert all(name.isprintable() for name in source.classes)
        assert all(skipped.reason and skipped.file.isprintable() for skipped in source.skipped)
    except UserError as message:
        assert len(str(message)) > 20

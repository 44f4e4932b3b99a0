"""Images, arrays and weights written elsewhere: any content leads to a value or a message."""

import gzip
import io

import numpy as np
import pytest
from PIL import Image

from vision_transfer.data.formats.idx import idx_source
from vision_transfer.data.formats.npz import npz_source
from vision_transfer.data.images.decode import UndecodableError, decode_image
from vision_transfer.errors import UserError
from vision_transfer.models.pretrained.keras_h5 import write_keras_h5
from vision_transfer.models.pretrained.safetensors_file import write_safetensors
from vision_transfer.models.pretrained.weights_file import read_weights_file

SHAPES = {
    "block1_conv1": {"kernel": (3, 3, 3, 4), "bias": (4,)},
    "block2_conv1": {"kernel": (3, 3, 4, 5), "bias": (5,)},
}
IMAGE_KINDS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF")


def _params(random):
    return {
        layer: {name: random.normal(size=shape).astype(np.float32) for name, shape in parameters.items()}
        for layer, parameters in SHAPES.items()
    }


def _encoded(random, kind):
    pixels = random.integers(0, 256, (12, 17, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


@pytest.mark.filterwarnings("ignore")
def test_images(cases, mutated):
    for random in cases(0.35):
        content = mutated(_encoded(random, IMAGE_KINDS[int(random.integers(0, len(IMAGE_KINDS)))]), random)
        try:
            pixels = decode_image(content, 3)
        except UndecodableError as reason:
            assert 0 < len(str(reason)) < 300
        else:
            assert pixels.dtype == np.uint8
            assert pixels.shape[2] == 3


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
                assert examples.pixels(index, 3).dtype == np.uint8
    except UserError as message:
        assert len(str(message)) > 20

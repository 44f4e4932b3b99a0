"""Safetensors files: ours, PyTorch's, and those whose headers lie."""

import json
import struct

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from vision_transfer.errors import UserError
from vision_transfer.models.pretrained.safetensors_file import read_metadata, write_safetensors
from vision_transfer.models.pretrained.weights_file import read_weights_file

SHAPES = {"a": {"kernel": (2, 3), "bias": (3,)}}


def write_raw(path, header, content=b"\0" * 36):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content)
    return path


def entry(shape, start, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def refusal(path, shapes=SHAPES):
    with pytest.raises(UserError) as error:
        read_weights_file(path, shapes)
    assert str(path) in str(error.value)
    return str(error.value)


def test_ours_is_read_back_with_its_texts(params, shapes, tmp_path, same, nothing_left):
    path = tmp_path / "ours.safetensors"
    write_safetensors(path, params, {"source": "a test"})
    read = read_weights_file(path, shapes)
    same(read.params, params)
    assert read.metadata == read_metadata(path) == {"source": "a test"}
    nothing_left(tmp_path, "ours.safetensors")


def test_torchvisions_is_read_with_torch_preprocessing(params, base_shapes, tmp_path, same, vgg_names):
    path = tmp_path / "torchvision.safetensors"
    tensors = {}
    for layer, place in zip(base_shapes, (0, 2, 5), strict=True):
        tensors[f"features.{place}.weight"] = np.ascontiguousarray(params[layer]["kernel"].transpose(3, 2, 0, 1))
        tensors[f"features.{place}.bias"] = params[layer]["bias"]
    save_file(tensors, path)
    read = read_weights_file(path, base_shapes, vgg_names)
    same(read.params, {layer: params[layer] for layer in base_shapes})
    assert read.preprocessing == "torch"


def test_a_header_as_it_should_be(tmp_path):
    path = write_raw(tmp_path / "w.safetensors", {"a/kernel": entry([2, 3], 0, 24), "a/bias": entry([3], 24, 36)})
    assert read_weights_file(path, SHAPES).params["a"]["bias"].shape == (3,)


@pytest.mark.parametrize(
    "header",
    [
        {"a/kernel": entry([2, 3], 0, 24), "a/bias": entry([1 << 62], 24, 36)},
        {"a/kernel": entry([2, 3], 0, 24), "a/bias": entry([3], 24, 1 << 40)},
        {"a/kernel": entry([2, 3], 0, 24), "a/bias": entry([3], 36, 24)},
        {"a/kernel": entry([2, 3], 0, 24), "a/bias": entry([3], 0, 12)},
        {"a/kernel": entry([2, 3], 0, 24), "a/bias": entry([3], 24, 36, "F99")},
        {"a/kernel": entry([2, 3], 0, 24), "a/bias": entry([-3], 24, 36)},
        {"a/kernel": entry([1 << 40, 1 << 40], 0, 24)},
        b'{"a/kernel": \xff}',
        b'{"a/kernel": "' + b"\x1b[2J" * 1000,
        b"{" + b"[" * 100_000,
        b"{",
    ],
)
def test_a_header_that_lies_is_a_message(header, tmp_path):
    message = refusal(write_raw(tmp_path / "w.safetensors", header))
    assert message.isprintable() or "\n" in message
    assert len(message) < 1000


def test_a_header_of_declared_gigabytes_is_not_parsed(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", 1 << 40) + b"{" + bytes(100))
    assert "1,099,511,627,776" in refusal(path)


@pytest.mark.parametrize(("dtype", "size"), [("I16", 2), ("F64", 8), ("I32", 4), ("F8_E4M3", 1)])
def test_another_type_is_named(dtype, size, tmp_path):
    header = {"a/kernel": entry([2, 3], 0, 24), "a/bias": entry([3], 24, 24 + 3 * size, dtype)}
    message = refusal(write_raw(tmp_path / "w.safetensors", header, bytes(24 + 3 * size)))
    assert f"a/bias: wanted (3,) float32; the file has a/bias (3,) {dtype}" in message


@pytest.mark.parametrize(("dtype", "number"), [("F16", np.float16), ("BF16", ml_dtypes.bfloat16)])
def test_half_precision_is_read(dtype, number, tmp_path):
    header = {"a/kernel": entry([2, 3], 0, 12, dtype), "a/bias": entry([3], 12, 18, dtype)}
    values = np.linspace(-3, 3, 9).astype(number)
    read = read_weights_file(write_raw(tmp_path / "w.safetensors", header, values.tobytes()), SHAPES)
    np.testing.assert_array_equal(read.params["a"]["kernel"].ravel(), values[:6].astype(np.float32))
    np.testing.assert_array_equal(read.params["a"]["bias"], values[6:].astype(np.float32))


def test_truncated_at_any_place(params, shapes, tmp_path):
    path = tmp_path / "w.safetensors"
    write_safetensors(path, params, {})
    content = path.read_bytes()
    for length in range(1, len(content), 37):
        path.write_bytes(content[:length])
        refusal(path, shapes)

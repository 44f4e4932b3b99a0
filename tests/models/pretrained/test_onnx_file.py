"""ONNX initializers, made by the onnx package itself; and files that lie or are damaged."""

import numpy as np
import onnx
import pytest

from vision_transfer.errors import UserError
from vision_transfer.models.pretrained import onnx_file
from vision_transfer.models.pretrained.weights_file import read_weights_file

BIAS = "functional_1/block1_conv1_1/Squeeze:0"


def refusal(path, shapes):
    with pytest.raises(UserError) as error:
        read_weights_file(path, shapes)
    assert str(path) in str(error.value)
    return str(error.value)


@pytest.fixture
def model(params, onnx_bytes, onnx_tensors):
    return onnx.ModelProto.FromString(onnx_bytes(onnx_tensors(params)))


@pytest.fixture
def changed(model, tmp_path):
    """The model's file after a change to its first bias."""

    def write(change):
        change(next(tensor for tensor in model.graph.initializer if tensor.name == BIAS))
        path = tmp_path / "model.onnx"
        path.write_bytes(model.SerializeToString())
        return path

    return write


def test_names_of_a_converter_from_keras_are_read(params, shapes, onnx_bytes, onnx_tensors, tmp_path, same):
    path = tmp_path / "model.onnx"
    path.write_bytes(onnx_bytes(onnx_tensors(params)))
    read = read_weights_file(path, shapes)
    same(read.params, params)
    assert read.preprocessing is None
    assert all(values.flags.writeable for parameters in read.params.values() for values in parameters.values())


def test_a_numbered_word_is_the_layer_and_a_longer_one_is_not(
    params, base_shapes, onnx_bytes, onnx_tensors, tmp_path, same
):
    base = {layer: params[layer] for layer in base_shapes}
    tensors = onnx_tensors(base) | {
        "functional_1/block1_conv10/Squeeze:0": np.zeros(4, np.float32),
        "functional_1/my_block1_conv1/Squeeze:0": np.zeros(4, np.float32),
    }
    (tmp_path / "weights.onnx").write_bytes(onnx_bytes(tensors))
    same(read_weights_file(tmp_path / "weights.onnx", base_shapes).params, base)


def test_names_of_pytorch_are_torchvisions_weights(params, base_shapes, onnx_bytes, tmp_path, same, vgg_names):
    tensors = {}
    for layer, place in zip(base_shapes, (0, 2, 5), strict=True):
        tensors[f"features.{place}.weight"] = params[layer]["kernel"].transpose(3, 2, 0, 1)
        tensors[f"features.{place}.bias"] = params[layer]["bias"]
    path = tmp_path / "model.onnx"
    path.write_bytes(onnx_bytes(tensors))
    read = read_weights_file(path, base_shapes, vgg_names)
    same(read.params, {layer: params[layer] for layer in base_shapes})
    assert read.preprocessing == "torch"


def test_values_in_the_field_for_floats_are_read(changed, params, shapes, same):
    def as_floats(tensor):
        tensor.ClearField("raw_data")
        tensor.float_data.extend(params["block1_conv1"]["bias"].tolist())

    same(read_weights_file(changed(as_floats), shapes).params, params)


def test_missing_and_misshapen_tensors_are_named(params, shapes, onnx_bytes, onnx_tensors, tmp_path):
    tensors = onnx_tensors(params)
    del tensors[BIAS]
    tensors["functional_1/block1_conv2_1/convolution/ReadVariableOp:0"] = params["block1_conv2"]["kernel"]
    path = tmp_path / "model.onnx"
    path.write_bytes(onnx_bytes(tensors))
    message = refusal(path, shapes)
    assert "block1_conv1/bias: wanted (4,) float32; the file has none" in message
    assert "block1_conv2/kernel: wanted (3, 3, 4, 5) float32; the file has functional_1/" in message
    assert "(3, 3, 4, 5) float32 (in the file: (5, 4, 3, 3))" in message


def test_values_in_other_files_are_not_read(changed, shapes, tmp_path):
    (tmp_path / "secret").write_bytes(np.ones(4, np.float32).tobytes())

    def external(tensor):
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="secret")

    assert "stored in another file" in refusal(changed(external), shapes)


@pytest.mark.parametrize("raw", [b"", bytes(12), bytes(20)])
def test_a_shape_that_the_values_do_not_fill(changed, shapes, raw):
    def other_length(tensor):
        tensor.raw_data = raw

    assert "16 bytes" in refusal(changed(other_length), shapes)


def test_a_declared_size_takes_no_memory(changed, shapes):
    def huge(tensor):
        tensor.dims[:] = [1 << 62]

    assert "(4611686018427387904,)" in refusal(changed(huge), shapes)


def test_many_dimensions_are_not_repeated(changed, shapes):
    def many(tensor):
        tensor.dims[:] = [1] * 1000

    assert "none" in refusal(changed(many), shapes)


@pytest.mark.parametrize("data_type", [onnx.TensorProto.DOUBLE, onnx.TensorProto.INT32, 4711])
def test_another_type_is_named(changed, shapes, data_type):
    def retype(tensor):
        tensor.data_type = data_type

    assert f"ONNX type {data_type}" in refusal(changed(retype), shapes)


def test_half_precision_is_read(params, shapes, onnx_bytes, onnx_tensors, tmp_path):
    tensors = {name: values.astype(np.float16) for name, values in onnx_tensors(params).items()}
    (tmp_path / "half.onnx").write_bytes(onnx_bytes(tensors))
    bias = read_weights_file(tmp_path / "half.onnx", shapes).params["fc1"]["bias"]
    np.testing.assert_array_equal(bias, params["fc1"]["bias"].astype(np.float16).astype(np.float32))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite(changed, shapes, value):
    def spoil(tensor):
        tensor.raw_data = np.array([1, 2, value, 3], np.float32).tobytes()

    assert "1 NaN or infinite of 4" in refusal(changed(spoil), shapes)


def test_truncated_at_any_place(model, shapes, tmp_path):
    content = model.SerializeToString()
    path = tmp_path / "model.onnx"
    # the version and the producer's name come first, then the graph, then 4 bytes on the operators
    for length in (1, 7, *range(9, len(content) - 4, 41)):
        path.write_bytes(content[:length])
        assert "truncated" in refusal(path, shapes)


def test_a_file_of_tiny_fields_is_given_up(shapes, tmp_path):
    """Two bytes each, which would become 170 bytes each in the onnx package."""
    count = 1_000_000
    path = tmp_path / "bomb.onnx"
    length = bytes([0x80 | (2 * count & 0x7F), 0x80 | (2 * count >> 7 & 0x7F), 2 * count >> 14])
    path.write_bytes(b"\x08\x09\x3a" + length + b"\x2a\x00" * count)
    assert f"more than {onnx_file.MAX_INITIALIZERS:,} initializers" in refusal(path, shapes)

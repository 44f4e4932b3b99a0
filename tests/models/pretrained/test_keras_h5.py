"""Keras's .h5 layouts, written here by h5py as Keras writes them; and files that lie or are damaged."""

import zlib

import h5py
import ml_dtypes
import numpy as np
import pytest

from tests.models.pretrained.conftest import write_keras_h5
from vision_transfer.errors import UserError
from vision_transfer.models.pretrained import keras_h5
from vision_transfer.models.pretrained.weights_file import read_weights_file


def write_group(group, layer, names, params):
    layer_group = group.create_group(layer)
    layer_group.attrs["weight_names"] = [name.encode() for name in names]
    for name, parameter in zip(names, ("kernel", "bias"), strict=True):
        layer_group[name] = params[layer][parameter]


def write_keras_3(path, params):
    """As `model.save_weights('x.weights.h5')`: layers by class and number, the name in an attribute."""
    with h5py.File(path, "w") as file:
        numbers = {"conv2d": 0, "dense": 0}
        for layer, parameters in params.items():
            kind = "conv2d" if parameters["kernel"].ndim == 4 else "dense"
            number = numbers[kind]
            numbers[kind] += 1
            inside = file.create_group(f"layers/{kind}_{number}/vars" if number else f"layers/{kind}/vars")
            inside.attrs["name"] = layer
            inside["0"], inside["1"] = parameters["kernel"], parameters["bias"]
        optimizer = file.create_group("optimizer/vars")
        optimizer.attrs["name"] = "rm_sprop"
        optimizer["0"] = np.float32(1)


def text(value):
    """Attributes are bytes or texts by the version of h5py."""
    return value.decode() if isinstance(value, bytes) else value


def layout_names(layer):
    return {
        "keras 1": [f"{layer}_W_1:0", f"{layer}_b_1:0"],
        "keras 1, unnumbered": [f"{layer}_W:0", f"{layer}_b:0"],
        "keras 2": [f"{layer}/kernel:0", f"{layer}/bias:0"],
        "keras 2, second model": [f"{layer}_1/kernel:0", f"{layer}_1/bias:0"],
        "keras 3": [f"{layer}/kernel", f"{layer}/bias"],
    }


@pytest.mark.parametrize("layout", list(layout_names("")))
@pytest.mark.parametrize("parent", ["/", "model_weights"])
def test_legacy_layouts_are_read(layout, parent, params, shapes, tmp_path, same):
    path = tmp_path / "model.h5"
    with h5py.File(path, "w") as file:
        group = file.require_group(parent)
        group.attrs["layer_names"] = [layer.encode() for layer in params]
        for layer in params:
            write_group(group, layer, layout_names(layer)[layout], params)
    same(read_weights_file(path, shapes).params, params)


def test_base_is_read_out_of_a_whole_nested_model_with_its_optimizer(params, base_shapes, tmp_path, same):
    path = tmp_path / "model.h5"
    with h5py.File(path, "w") as file:
        for layer in params:
            file[f"model_weights/vgg16/vgg16/{layer}/kernel"] = params[layer]["kernel"]
            file[f"model_weights/vgg16/vgg16/{layer}/bias"] = params[layer]["bias"]
            file[f"optimizer_weights/adam/{layer}/kernel"] = np.ones_like(params[layer]["kernel"])
            file[f"optimizer_weights/adam/{layer}/bias"] = np.ones_like(params[layer]["bias"])
    read = read_weights_file(path, base_shapes)
    same(read.params, {layer: params[layer] for layer in base_shapes})
    assert read.preprocessing is None


def test_keras_3_weights_are_read(params, shapes, tmp_path, same):
    path = tmp_path / "model.weights.h5"
    write_keras_3(path, params)
    same(read_weights_file(path, shapes).params, params)


def test_written_file_has_keras_layout_and_is_read_back(params, shapes, tmp_path, same):
    path = tmp_path / "vgg.h5"
    write_keras_h5(path, params)
    with h5py.File(path) as file:
        assert text(file.attrs["backend"]) == "tensorflow"
        assert [text(name) for name in file.attrs["layer_names"]] == list(params)
        for layer in params:
            names = [text(name) for name in file[layer].attrs["weight_names"]]
            assert names == [f"{layer}/kernel:0", f"{layer}/bias:0"]
            np.testing.assert_array_equal(file[layer][names[0]], params[layer]["kernel"])
    same(read_weights_file(path, shapes).params, params)


def refusal(path, shapes):
    with pytest.raises(UserError) as error:
        read_weights_file(path, shapes)
    assert str(path) in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("kept", [0.001, 0.3, 0.7, 0.95, 0.999])
def test_truncated_file(kept, params, shapes, tmp_path):
    path = tmp_path / "vgg.h5"
    write_keras_h5(path, params)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    assert "truncated" in refusal(path, shapes) or "formats allowed" in refusal(path, shapes)


def test_missing_and_misshapen_tensors_are_named(params, shapes, tmp_path):
    path = tmp_path / "vgg.h5"
    changed = {layer: dict(parameters) for layer, parameters in params.items() if layer != "fc1"}
    changed["block1_conv2"]["kernel"] = params["block1_conv2"]["kernel"].transpose(3, 2, 0, 1)
    write_keras_h5(path, changed | {"my_head": {"kernel": np.ones((3, 1)), "bias": np.ones(1)}})
    message = refusal(path, shapes)
    assert "3 of the 10 tensors" in message
    assert "block1_conv2/kernel: wanted (3, 3, 4, 5) float32; the file has" in message
    assert "(5, 4, 3, 3) float32" in message
    assert "fc1/kernel: wanted (24, 7) float32; the file has none" in message
    assert "my_head/my_head/kernel:0 (3, 1) float32" in message


@pytest.mark.parametrize("dtype", ["float64", "int32"])
def test_other_types_are_named(dtype, params, base_shapes, tmp_path):
    path = tmp_path / "vgg.h5"
    write_keras_h5(path, params)
    with h5py.File(path, "a") as file:
        del file["block1_conv1/block1_conv1/bias:0"]
        file["block1_conv1/block1_conv1/bias:0"] = np.ones(4, dtype)
    assert f"(4,) {dtype}" in refusal(path, base_shapes)


def replaced_bias(path, params, create):
    """The file of these parameters with another first bias, made by `create(group, name)`."""
    write_keras_h5(path, params)
    with h5py.File(path, "a") as file:
        group = file["block1_conv1/block1_conv1"]
        del group["bias:0"]
        create(group, "bias:0")
    return path


def test_values_in_other_files_are_not_read(params, base_shapes, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(np.ones(4, np.float32).tobytes())
    write_keras_h5(tmp_path / "other.h5", params)

    def external_storage(group, name):
        group.create_dataset(name, (4,), "<f4", external=[(str(secret), 0, 16)])

    def external_link(group, name):
        group[name] = h5py.ExternalLink(tmp_path / "other.h5", "block1_conv1/block1_conv1/bias:0")

    def virtual(group, name):
        layout = h5py.VirtualLayout((4,), "<f4")
        layout[:] = h5py.VirtualSource(tmp_path / "other.h5", "block1_conv1/block1_conv1/bias:0", (4,))
        group.create_virtual_dataset(name, layout)

    for number, (create, word) in enumerate(
        [(external_storage, "another file"), (external_link, "none"), (virtual, "in pieces of other files")]
    ):
        path = replaced_bias(tmp_path / f"{number}.h5", params, create)
        assert word in refusal(path, base_shapes)


@pytest.mark.parametrize("chunks", [None, (2,), (3,)])
@pytest.mark.parametrize("compression", ["gzip", "lzf"])
@pytest.mark.parametrize("shuffle", [False, True])
def test_compressed_values_are_read(chunks, shuffle, compression, params, base_shapes, tmp_path, same):
    def compressed(group, name):
        values = params["block1_conv1"]["bias"]
        group.create_dataset(name, data=values, chunks=chunks, compression=compression, shuffle=shuffle)

    path = replaced_bias(tmp_path / "compressed.h5", params, compressed)
    same(read_weights_file(path, base_shapes).params, {layer: params[layer] for layer in base_shapes})


def test_compressed_kernels_are_read(params, base_shapes, tmp_path, same):
    path = tmp_path / "compressed.h5"
    with h5py.File(path, "w") as file:
        for layer in base_shapes:
            kernel = params[layer]["kernel"]
            file.create_dataset(f"{layer}/kernel", data=kernel, chunks=(2, 2, 3, 3), compression="gzip", shuffle=True)
            file[f"{layer}/bias"] = params[layer]["bias"]
    same(read_weights_file(path, base_shapes).params, {layer: params[layer] for layer in base_shapes})


def test_a_piece_that_unpacks_to_more_than_its_values_takes_no_memory(params, base_shapes, tmp_path):
    def bomb(group, name):
        dataset = group.create_dataset(name, (4,), "<f4", chunks=(4,), compression="gzip")
        compressor = zlib.compressobj(1)
        head = compressor.compress(bytes(1 << 20)) + compressor.flush(zlib.Z_FULL_FLUSH)
        again = compressor.compress(bytes(1 << 20)) + compressor.flush(zlib.Z_FULL_FLUSH)
        dataset.id.write_direct_chunk((0,), head + again * 700)

    assert "damaged" in refusal(replaced_bias(tmp_path / "bomb.h5", params, bomb), base_shapes)


def test_pieces_that_were_never_written_are_missed(params, base_shapes, tmp_path):
    def lacking(group, name):
        group.create_dataset(name, (4,), "<f4", chunks=(2,), compression="gzip")[:2] = 1

    path = replaced_bias(tmp_path / "lacking.h5", params, lacking)
    assert "without some of its pieces" in refusal(path, base_shapes)


@pytest.mark.parametrize("dtype", ["<f2", ">f2", ">f4", ml_dtypes.bfloat16])
def test_half_precision_and_other_orders_of_bytes_are_read(dtype, params, base_shapes, tmp_path, same):
    half = {
        layer: {name: values.astype(dtype) for name, values in parameters.items()}
        for layer, parameters in params.items()
        if layer in base_shapes
    }
    with h5py.File(tmp_path / "half.h5", "w") as file:
        for layer, parameters in half.items():
            file[f"{layer}/kernel"], file[f"{layer}/bias"] = parameters["kernel"], parameters["bias"]
    expected = {
        layer: {name: values.astype(np.float32) for name, values in parameters.items()}
        for layer, parameters in half.items()
    }
    same(read_weights_file(tmp_path / "half.h5", base_shapes).params, expected)


def test_declared_size_takes_no_memory(params, base_shapes, tmp_path):
    def huge(group, name):
        group.create_dataset(name, (1 << 40,), "<f4")

    assert "(1099511627776,)" in refusal(replaced_bias(tmp_path / "huge.h5", params, huge), base_shapes)


def test_a_group_inside_itself_ends(params, base_shapes, tmp_path, same):
    path = tmp_path / "vgg.h5"
    write_keras_h5(path, params)
    with h5py.File(path, "a") as file:
        file["loop"] = file["/"]
        file["soft"] = h5py.SoftLink("/")
    message = refusal(path, base_shapes)  # each tensor is there under many names, so none is meant
    assert "loop/block1_conv1" in message


def test_many_objects_end(base_shapes, tmp_path):
    path = tmp_path / "many.h5"
    with h5py.File(path, "w", libver="latest") as file:
        for index in range(3000):
            file.create_group(f"layer{index}")
        file["loop"] = file["/"]
    assert "6 of the 6 tensors" in refusal(path, base_shapes)


def test_a_file_that_sends_the_library_round_in_circles_ends(params, base_shapes, tmp_path):
    path = tmp_path / "circle.h5"
    write_keras_h5(path, params)
    content = bytearray(path.read_bytes())

    def number(place):
        return int.from_bytes(content[place : place + 8], "little")

    heap = content.rfind(b"HEAP")
    first_free, data = number(heap + 16), number(heap + 24)
    content[data + first_free : data + first_free + 8] = first_free.to_bytes(8, "little")
    path.write_bytes(content)
    assert "damaged" in refusal(path, base_shapes)


def test_a_listing_that_takes_too_long_is_ended(params, base_shapes, tmp_path, monkeypatch):
    path = tmp_path / "vgg.h5"
    write_keras_h5(path, params)
    monkeypatch.setattr(keras_h5, "ANSWER_SECONDS", 0.01)
    assert "were not read within" in refusal(path, base_shapes)


def test_paths_with_spaces_and_letters_of_all_kinds(params, shapes, tmp_path, same, monkeypatch):
    folder = tmp_path / "mes poids – 重み"
    folder.mkdir()
    write_keras_h5(folder / "v g g é.h5", params)
    monkeypatch.chdir(folder)
    same(read_weights_file(type(folder)("v g g é.h5"), shapes).params, params)

"""Keras's names of tensors, also those that it gives by itself; and batch norms with their statistics."""

import itertools
import re
from collections import Counter

import h5py
import numpy as np
import pytest
from safetensors.numpy import save_file

from vision_transfer.errors import UserError
from vision_transfer.models.backbones.registry import find_backbone
from vision_transfer.models.network import Network, all_parameter_shapes
from vision_transfer.models.pretrained.keras_names import parameter_word
from vision_transfer.models.pretrained.tensors import tensors_sha256, with_statistics
from vision_transfer.models.pretrained.weights_file import read_weights_file

# A convolution, a depthwise and a separable one, each with a batch norm; the names of some are Keras's own.
SHAPES = {
    "stem": {"kernel": (3, 3, 3, 4)},
    "batch_normalization": {"scale": (4,), "bias": (4,)},
    "down": {"kernel": (3, 3, 4, 1)},
    "down_bn": {"scale": (4,), "bias": (4,)},
    "batch_normalization_1": {"scale": (4,), "bias": (4,)},
    "mixed": {"depthwise_kernel": (3, 3, 4, 1), "pointwise_kernel": (1, 1, 4, 5), "bias": (5,)},
}
KERAS_PARAMETERS = {"scale": "gamma", "mean": "moving_mean", "variance": "moving_variance"}
KERAS_1_WORDS = {"kernel": "W", "scale": "gamma", "mean": "running_mean", "variance": "running_std"}
# By the first parameter of a layer.
KERAS_1_CLASSES = {
    "kernel": "convolution2d",
    "depthwise_kernel": "separableconvolution2d",
    "scale": "batchnormalization",
}


@pytest.fixture
def tensors():
    rng = np.random.default_rng(0)
    return {
        layer: {name: rng.normal(size=shape).astype(np.float32) for name, shape in parameters.items()}
        for layer, parameters in with_statistics(SHAPES).items()
    }


def check(read, tensors):
    assert list(read.tensors) == list(SHAPES)
    for layer, parameters in tensors.items():
        for name, values in parameters.items():
            np.testing.assert_array_equal(read.tensors[layer][name], values)
    assert list(read.batch_stats) == ["batch_normalization", "down_bn", "batch_normalization_1"]
    assert read.params["down_bn"].keys() == {"scale", "bias"}


def keras_name(layer, parameter):
    if "scale" in SHAPES[layer] and parameter == "bias":
        return "beta"
    return (
        "depthwise_kernel" if (layer, parameter) == ("down", "kernel") else KERAS_PARAMETERS.get(parameter, parameter)
    )


def write_legacy(path, tensors, rename=lambda layer: layer):
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [rename(layer).encode() for layer in tensors]
        for layer, parameters in tensors.items():
            for parameter, values in parameters.items():
                file[f"{rename(layer)}/{rename(layer)}/{keras_name(layer, parameter)}:0"] = values
    return path


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("kernel:0", "kernel"),
        ("kernel_1:0", "kernel"),
        ("block1_conv1_W_1:0", "kernel"),
        ("block1_conv1_b:0", "bias"),
        ("depthwise_kernel:0", "depthwise_kernel"),
        ("bn_conv1_running_std:0", "variance"),
        ("moving_mean_3", "mean"),
        ("beta", "bias"),
        ("2", "2"),
    ],
)
def test_words_of_all_versions(name, word):
    assert parameter_word(name) == word


def test_batch_norms_and_depthwise_kernels_of_older_files(tensors, tmp_path):
    check(read_weights_file(write_legacy(tmp_path / "a.h5", tensors), SHAPES), tensors)


def test_names_that_keras_gave_in_another_process(tensors, tmp_path):
    """The number of Keras's own names is only their order: what was `batch_normalization` may be `…_94`."""

    def renumbered(layer):
        return layer.replace("batch_normalization_1", "batch_normalization_95").replace(
            "batch_normalization", "batch_normalization_94", 1 if layer == "batch_normalization" else 0
        )

    check(read_weights_file(write_legacy(tmp_path / "a.h5", tensors, renumbered), SHAPES), tensors)


def test_the_order_of_the_file_counts_before_the_numbers(tensors, tmp_path):
    """`model.layers` may have layers in another order than that in which they were made."""
    names = {"batch_normalization": "batch_normalization_9", "batch_normalization_1": "batch_normalization_2"}
    path = write_legacy(tmp_path / "a.h5", tensors, lambda layer: names.get(layer, layer))
    check(read_weights_file(path, SHAPES), tensors)


def test_tensors_by_number(tensors, tmp_path):
    """Keras 3: `layers/conv2d/vars/0`; the groups have numbers by class, in the order of the layers."""
    kinds = ["conv2d", "batch_normalization", "depthwise_conv2d", "batch_normalization", "batch_normalization"]
    numbers = {}
    with h5py.File(tmp_path / "a.weights.h5", "w") as file:
        for layer, kind in zip(tensors, [*kinds, "separable_conv2d"], strict=True):
            number = numbers.setdefault(kind, itertools.count())
            group = file.create_group(f"layers/{kind}{f'_{count}' if (count := next(number)) else ''}/vars")
            group.attrs["name"] = layer
            for place, values in enumerate(tensors[layer].values()):
                # the bias of a separable convolution comes last here and in Keras
                group[str(place)] = values
    check(read_weights_file(tmp_path / "a.weights.h5", SHAPES), tensors)


def test_ours(tensors, tmp_path):
    flat = {f"{layer}/{name}": values for layer, parameters in tensors.items() for name, values in parameters.items()}
    save_file(flat, tmp_path / "a.safetensors")
    read = read_weights_file(tmp_path / "a.safetensors", SHAPES)
    check(read, tensors)
    assert tensors_sha256(read.tensors) == tensors_sha256(tensors)
    flat["down_bn/mean"] = flat["down_bn/mean"] + 1
    save_file(flat, tmp_path / "b.safetensors")
    assert tensors_sha256(read_weights_file(tmp_path / "b.safetensors", SHAPES).tensors) != tensors_sha256(tensors)


@pytest.mark.parametrize(
    ("backbone", "name_in_release"),
    [
        ("xception", lambda name, kind, number: f"{kind}_{number}"),
        ("densenet121", lambda name, kind, number: re.sub("^conv1_", "conv1/", name)),
        ("mobilenet_v2", lambda name, kind, number: mobilenet_v2_of_2018(name)),
    ],
)
def test_keras_releases_have_the_names_of_their_time(backbone, name_in_release, tmp_path):
    """Keras loads them by order alone; layers of the same shape would be exchanged in silence by a wrong match."""
    shapes = all_parameter_shapes(Network(find_backbone(backbone).rows, (), (224, 224, 3)))
    rng = np.random.default_rng(0)
    path, expected, numbers, renamed = tmp_path / "a.h5", {}, Counter(), 0
    with h5py.File(path, "w") as file:
        names = []
        for layer, parameters in with_statistics(shapes).items():
            kind = KERAS_1_CLASSES[next(iter(parameters))]
            numbers[kind] += 1
            names.append(name := name_in_release(layer, kind, numbers[kind]))
            renamed += name != layer
            expected[layer] = {parameter: rng.normal(size=shape[-1:]) for parameter, shape in parameters.items()}
            inside = "" if backbone == "xception" else f"/{name}"
            for parameter, shape in parameters.items():
                words = KERAS_1_WORDS if backbone == "xception" else KERAS_PARAMETERS
                word = "beta" if "scale" in parameters and parameter == "bias" else words.get(parameter, parameter)
                word = f"{name}_{word}" if backbone == "xception" else word
                file[f"{name}{inside}/{word}:0"] = np.broadcast_to(expected[layer][parameter], shape).astype("f4")
        file.attrs["layer_names"] = [name.encode() for name in names]
    assert renamed
    read = read_weights_file(path, shapes).tensors
    for layer, parameters in expected.items():
        for parameter, values in parameters.items():
            np.testing.assert_allclose(read[layer][parameter].reshape(-1, len(values))[0], values, rtol=1e-6)


def mobilenet_v2_of_2018(name):
    name = name.replace("expanded_conv_", "block_0_")
    name = re.sub(r"^block_(\d+)_(\w+)_BN$", r"bn\1_conv_\1_bn_\2", name)
    return re.sub(r"^block_(\d+)_(\w+)$", r"mobl\1_conv_\1_\2", name)


def test_another_number_of_unnamed_layers_is_said(tensors, tmp_path):
    more = tensors | {"batch_normalization_7": tensors["batch_normalization"]}
    with h5py.File(write_legacy(tmp_path / "a.h5", tensors), "a") as file:
        for parameter, values in more["batch_normalization_7"].items():
            file[f"batch_normalization_7/batch_normalization_7/{keras_name('down_bn', parameter)}:0"] = values
    with pytest.raises(UserError) as error:
        read_weights_file(tmp_path / "a.h5", SHAPES)
    assert "the file has 3 layers called batch_normalization by Keras itself, the network 2" in str(error.value)


def test_a_file_without_running_statistics_is_one_message(tensors, tmp_path):
    trained = {layer: {name: parameters[name] for name in SHAPES[layer]} for layer, parameters in tensors.items()}
    path = write_legacy(tmp_path / "a.h5", trained)
    with pytest.raises(UserError) as error:
        read_weights_file(path, SHAPES)
    message = str(error.value)
    assert str(path) in message
    assert "no running statistics for 3 batch norms" in message
    assert "batch_normalization/mean, (4,) float32" in message
    assert "\n" not in message

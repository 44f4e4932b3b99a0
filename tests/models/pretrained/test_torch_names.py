"""PyTorch's names and axes, against what the layers compute."""

import numpy as np
import pytest

from vision_transfer.models.backbones.registry import BACKBONES
from vision_transfer.models.pretrained.tensors import StoredTensor, read_wanted
from vision_transfer.models.pretrained.torch_names import by_torch_names, has_torch_names

# Positions of the convolutions in torchvision's `vgg16().features` and `vgg19().features`.
TORCHVISION_CONVOLUTIONS = {
    "vgg16": (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
    "vgg19": (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34),
}
CONVOLUTIONS_PER_BLOCK = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}


def stored(tensors):
    return [
        StoredTensor(name, tuple(name.split("/")), value.shape, "float32", lambda value=value: value)
        for name, value in tensors.items()
    ]


def torch_tensors(seed=0):
    """A network of the test's shapes as PyTorch keeps it."""
    rng = np.random.default_rng(seed)
    shapes = {
        "features.0": (4, 3, 3, 3),
        "features.2": (5, 4, 3, 3),
        "features.5": (6, 5, 3, 3),
        "classifier.0": (7, 24),
        "classifier.6": (2, 7),
    }
    return {
        f"{module}.{kind}": rng.normal(size=shape if kind == "weight" else shape[:1]).astype(np.float32)
        for module, shape in shapes.items()
        for kind in ("weight", "bias")
    }


def read_torch(tensors, shapes, tmp_path):
    match = by_torch_names(stored(tensors), shapes, BACKBONES["vgg16"].torch_names)
    return read_wanted(tmp_path, match.wanted, stored(tensors))


@pytest.mark.parametrize("architecture", ["vgg16", "vgg19"])
def test_modules_of_vgg_are_torchvisions(architecture):
    layers = [
        f"block{block}_conv{conv}"
        for block, count in enumerate(CONVOLUTIONS_PER_BLOCK[architecture], 1)
        for conv in range(1, count + 1)
    ]
    shapes = {layer: {"kernel": (3, 3, 1, 1), "bias": (1,)} for layer in layers}
    shapes |= {name: {"kernel": (1, 1), "bias": (1,)} for name in ("fc1", "fc2", "predictions")}
    modules = [f"features.{place}" for place in TORCHVISION_CONVOLUTIONS[architecture]]
    modules += ["classifier.0", "classifier.3", "classifier.6"]
    tensors = {f"{module}.{kind}": np.zeros(1) for module in modules for kind in ("weight", "bias")}
    wanted = by_torch_names(stored(tensors), shapes, BACKBONES[architecture].torch_names).wanted
    assert [tensor.candidates[0].name for tensor in wanted] == list(tensors)
    assert all(len(tensor.candidates) == 1 for tensor in wanted)


def test_a_convolution_computes_the_same_at_a_pixel(shapes, tmp_path):
    tensors = torch_tensors()
    params = read_torch(tensors, shapes, tmp_path)
    window = np.random.default_rng(1).normal(size=(3, 3, 4)).astype(np.float32)
    ours = np.einsum("hwi,hwio->o", window, params["block1_conv2"]["kernel"])
    theirs = [np.sum(window.transpose(2, 0, 1) * kernel) for kernel in tensors["features.2.weight"]]
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_a_flattened_map_goes_into_the_same_sums(shapes, tmp_path):
    tensors = torch_tensors()
    params = read_torch(tensors, shapes, tmp_path)
    last_map = np.random.default_rng(1).normal(size=(2, 2, 6)).astype(np.float32)
    ours = last_map.reshape(-1) @ params["fc1"]["kernel"]
    theirs = tensors["classifier.0.weight"] @ last_map.transpose(2, 0, 1).reshape(-1)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    np.testing.assert_array_equal(params["predictions"]["kernel"], tensors["classifier.6.weight"].T)


def test_timms_dense_layers_are_convolutions_over_the_map(tmp_path):
    shapes = {
        "block1_conv1": {"kernel": (3, 3, 3, 4), "bias": (4,)},
        "fc1": {"kernel": (4 * 49, 5), "bias": (5,)},
        "fc2": {"kernel": (5, 5), "bias": (5,)},
        "predictions": {"kernel": (5, 2), "bias": (2,)},
    }
    rng = np.random.default_rng(0)
    timm_shapes = {
        "features.0": (4, 3, 3, 3),
        "pre_logits.fc1": (5, 4, 7, 7),
        "pre_logits.fc2": (5, 5, 1, 1),
        "head.fc": (2, 5),
    }
    tensors = {f"{name}.weight": rng.normal(size=shape).astype(np.float32) for name, shape in timm_shapes.items()}
    tensors |= {f"{name}.bias": rng.normal(size=shape[:1]).astype(np.float32) for name, shape in timm_shapes.items()}
    params = read_torch(tensors, shapes, tmp_path)
    last_map = rng.normal(size=(7, 7, 4)).astype(np.float32)
    theirs = np.einsum("hwc,ochw->o", last_map, tensors["pre_logits.fc1.weight"])
    np.testing.assert_allclose(last_map.reshape(-1) @ params["fc1"]["kernel"], theirs, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(params["fc2"]["kernel"], tensors["pre_logits.fc2.weight"][:, :, 0, 0].T)
    np.testing.assert_array_equal(params["predictions"]["kernel"], tensors["head.fc.weight"].T)


def test_torch_names_are_told_by_most_names():
    assert has_torch_names(stored(torch_tensors()))
    assert not has_torch_names(stored({"block1_conv1/kernel": np.zeros(1)}))

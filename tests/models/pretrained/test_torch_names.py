"""PyTorch's names and axes, against what the layers compute."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from vision_transfer.errors import UserError
from vision_transfer.models.backbones.registry import BACKBONES
from vision_transfer.models.network import Network, all_parameter_shapes
from vision_transfer.models.pretrained.tensors import StoredTensor, read_wanted, with_statistics
from vision_transfer.models.pretrained.torch_names import TorchNames, by_torch_names, has_torch_names
from vision_transfer.models.pretrained.weights_file import read_weights_file

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
    wanted, _ = by_torch_names(stored(tensors), shapes, BACKBONES["vgg16"].torch_names)
    return read_wanted(tmp_path, wanted, stored(tensors))


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
    wanted, _ = by_torch_names(stored(tensors), shapes, BACKBONES[architecture].torch_names)
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


@pytest.mark.parametrize("kernel", [(3, 3, 3, 4), (3, 3, 4, 1)])
def test_a_norm_between_map_and_dense_layer_changes_no_order(kernel, tmp_path):
    """Also after a depthwise convolution, whose kernel does not end with its channels."""
    name = "kernel" if kernel[-1] == 4 else "depthwise_kernel"
    shapes = {
        "conv": {"kernel": kernel},
        "norm": {"scale": (4,), "bias": (4,)},
        "dense": {"kernel": (4 * 9, 5), "bias": (5,)},
    }
    rng = np.random.default_rng(0)
    stored_kernel = (kernel[2], 1, 3, 3) if name != "kernel" else (4, 3, 3, 3)
    sizes = {"0.weight": stored_kernel, "2.weight": (5, 36), "2.bias": (5,)}
    sizes |= {f"1.{word}": (4,) for word in ("weight", "bias", "running_mean", "running_var")}
    tensors = {word: rng.normal(size=size).astype(np.float32) for word, size in sizes.items()}
    save_file(tensors, tmp_path / "a.safetensors")
    names = (TorchNames("own", {"conv": "0", "norm": "1", "dense": "2"}),)
    params = read_weights_file(tmp_path / "a.safetensors", shapes, names).params
    last_map = rng.normal(size=(3, 3, 4)).astype(np.float32)
    theirs = tensors["2.weight"] @ last_map.transpose(2, 0, 1).reshape(-1)
    np.testing.assert_allclose(last_map.reshape(-1) @ params["dense"]["kernel"], theirs, rtol=1e-4, atol=1e-5)


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


@pytest.mark.parametrize(
    ("backbone", "names"),
    [
        ("efficientnet_lite0", {"stem_bn": "_bn0", "block7a_project_bn": "_blocks.15._bn2", "predictions": "_fc"}),
        ("efficientnet_lite2", {"block1a_dwconv": "_blocks.0._depthwise_conv", "block7a_bn": "_blocks.20._bn1"}),
        ("mobilenet_v2_torch", {"block_16_depthwise": "features.17.conv.1.0", "Conv1": "features.0.0"}),
        ("mobilenet_v2_torch", {"block_16_depthwise": "features.17.conv.3", "block_16_project": "features.17.conv.6"}),
        ("resnet50_torch", {"conv2_block1_0_bn": "layer1.0.downsample.1", "conv5_block3_2_conv": "layer4.2.conv2"}),
        ("mobilenet_v2_torch", {"block_16_depthwise": "blocks.6.0.conv_dw", "Conv_1_bn": "bn2"}),
    ],
)
def test_names_of_libraries(backbone, names):
    known = BACKBONES[backbone].torch_names
    assert any(all(one.modules.get(layer) == module for layer, module in names.items()) for one in known)


@pytest.mark.parametrize("backbone", [name for name, entry in BACKBONES.items() if entry.torch_names])
def test_each_layer_with_parameters_has_a_module_of_its_own(backbone):
    entry = BACKBONES[backbone]
    side = entry.image_size
    shapes = all_parameter_shapes(Network(entry.rows, entry.classifier, (side, side, 3)))
    for known in entry.torch_names:
        assert set(known.modules) == set(shapes)
        assert len(set(known.modules.values())) == len(shapes)


def test_torchvisions_resnet50_has_its_number_of_parameters():
    """torchvision/models/resnet.py: 25,557,032 with the classifier, which has 2,049,000."""
    entry = BACKBONES["resnet50_torch"]
    shapes = all_parameter_shapes(Network(entry.rows, (), (224, 224, 3)))
    assert sum(np.prod(shape) for parameters in shapes.values() for shape in parameters.values()) == 23_508_032


def test_statistics_and_depthwise_kernels_of_pytorch(tmp_path):
    shapes = {"block_1_depthwise": {"kernel": (3, 3, 4, 1)}, "block_1_depthwise_BN": {"scale": (4,), "bias": (4,)}}
    rng = np.random.default_rng(0)
    modules = {"features.2.conv.1.0.weight": (4, 1, 3, 3)}
    modules |= dict.fromkeys(
        (f"features.2.conv.1.1.{name}" for name in ("weight", "bias", "running_mean", "running_var")), (4,)
    )
    tensors = {name: rng.normal(size=shape).astype(np.float32) for name, shape in modules.items()}
    known = BACKBONES["mobilenet_v2_torch"].torch_names
    wanted, names = by_torch_names(stored(tensors), with_statistics(shapes), known)
    assert names.library == "torchvision"
    read = read_wanted(tmp_path, wanted, stored(tensors))
    window = rng.normal(size=(3, 3, 4)).astype(np.float32)
    theirs = [np.sum(window[..., i] * tensors["features.2.conv.1.0.weight"][i, 0]) for i in range(4)]
    np.testing.assert_allclose(np.sum(window * read["block_1_depthwise"]["kernel"][..., 0], (0, 1)), theirs, rtol=1e-5)
    np.testing.assert_array_equal(read["block_1_depthwise_BN"]["variance"], tensors["features.2.conv.1.1.running_var"])


def test_a_network_as_keras_has_it_takes_no_weights_of_pytorchs(tmp_path):
    """MobileNetV2's tensors have the same shapes in both, but mean another network."""
    save_file({"features.0.0.weight": np.zeros((32, 3, 3, 3), np.float32)}, tmp_path / "m.safetensors")
    shapes = {"Conv1": {"kernel": (3, 3, 3, 32)}}
    with pytest.raises(UserError) as error:
        read_weights_file(tmp_path / "m.safetensors", shapes, BACKBONES["mobilenet_v2"].torch_names)
    for part in ("m.safetensors", "features.0.0.weight", "as Keras has it", "_torch"):
        assert part in str(error.value)
    read_weights_file(tmp_path / "m.safetensors", shapes, BACKBONES["mobilenet_v2_torch"].torch_names)


def test_another_architecture_is_one_message(tmp_path):
    save_file({"layer1.0.conv1.weight": np.zeros((64, 64, 1, 1), np.float32)}, tmp_path / "r.safetensors")
    with pytest.raises(UserError) as error:
        read_weights_file(
            tmp_path / "r.safetensors",
            {"Conv1": {"kernel": (3, 3, 3, 32)}},
            BACKBONES["mobilenet_v2_torch"].torch_names,
        )
    for part in (
        "r.safetensors",
        "layer1.0.conv1.weight",
        "features.0.0.weight (torchvision)",
        "config.model.backbone",
    ):
        assert part in str(error.value)


def test_the_state_of_an_optimizer_in_the_file_does_not_count():
    tensors = torch_tensors()
    state = {
        f"optimizer.state.{place}.{kind}": np.zeros(1)
        for place in range(10)
        for kind in ("step", "exp_avg", "exp_avg_sq")
    }
    assert has_torch_names(stored(tensors | state))

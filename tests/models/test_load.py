"""`load` from Python: the variables of each backbone, the head, and what it refuses."""

import io

import jax
import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import save_file

from vision_transfer.config import checked, default_config, stage, with_stages
from vision_transfer.config.own_parts import TRUST_VARIABLE, with_sources
from vision_transfer.errors import UserError
from vision_transfer.models.backbones.registry import backbone_rows, find_backbone
from vision_transfer.models.load import initial_variables, load, load_backbone_weights
from vision_transfer.models.network import Network, all_parameter_shapes, apply, init
from vision_transfer.models.pretrained.load import PretrainedWeights
from vision_transfer.models.pretrained.tensors import with_statistics
from vision_transfer.runtime.console import Screen


def random(backbone, **choices):
    return load(backbone, weights="random", **choices)


def shapes_of(variables):
    return {layer: {name: leaf.shape for name, leaf in leaves.items()} for layer, leaves in variables["params"].items()}


@pytest.mark.parametrize(
    ("backbone", "channels"),
    [("vgg16", 512), ("efficientnet_lite0", 1280), ("mobilenet_v2", 1280), ("xception", 2048), ("resnet50", 2048)],
)
def test_a_backbone_alone_gives_an_average_per_channel(backbone, channels):
    network, variables = random(backbone, image_size=64)
    assert network.shape_after(network.rows[-1].name) == (channels,)
    assert shapes_of(variables) == all_parameter_shapes(network)


def test_flatten_keeps_the_map_and_a_head_takes_it():
    network, _ = random("vgg16", pooling="flatten", image_size=64)
    assert network.shape_after(network.rows[-1].name) == (2, 2, 512)
    network, variables = random("mnist_convnet", pooling="flatten", image_size=28, classes=5)
    assert variables["params"]["head_logits"]["kernel"].shape == (3 * 3 * 64, 5)
    logits = apply(network, variables, np.zeros((2, 28, 28, 3), np.uint8))
    assert logits.shape == (2, 5) and logits.dtype == np.float32


def test_the_seed_decides_what_is_random():
    first, again, other = (random("mnist_convnet", image_size=28, classes=3, seed=seed)[1] for seed in (1, 1, 2))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert np.any(first["params"]["head_logits"]["kernel"] != other["params"]["head_logits"]["kernel"])


def test_a_file_s_batch_norms_are_taken(tmp_path, screen):
    """Of a small convnet with batch norms, which has the same convolutions as the one without."""
    rows = backbone_rows("convnet_150", batch_norm=True)
    shapes = with_statistics(all_parameter_shapes(Network(rows, (), (150, 150, 3))))
    tensors = {
        f"{layer}/{name}": np.full(shape, 7, np.float32)
        for layer, leaves in shapes.items()
        for name, shape in leaves.items()
    }
    save_file(tensors, tmp_path / "a.safetensors")
    given = {"channels": 3, "path": str(tmp_path / "a.safetensors"), "cache_dir": tmp_path, "screen": screen}
    found = load_backbone_weights("convnet_150", batch_norm=True, **given)
    assert found.params.keys() == shapes.keys() and len(found.batch_stats) == 4
    assert found.preprocessing == find_backbone("convnet_150").preprocessing


def test_a_dense_layer_of_an_own_backbone_is_of_the_size_of_the_images(tmp_path, screen, monkeypatch):
    monkeypatch.setenv(TRUST_VARIABLE, "1")
    (tmp_path / "own.py").write_text(
        "from vision_transfer.models.layers import Conv, Dense, Flatten\n"
        "def rows():\n    return (Conv('c', 4), Flatten('f'), Dense('d', 3))\n"
    )
    config = default_config()
    config.model.backbone = f"{tmp_path}/own.py:rows"
    reference = with_sources(checked(with_stages(config, head=stage(freeze="all")))).model.backbone
    shapes = all_parameter_shapes(Network(backbone_rows(reference), (), (8, 8, 3)))
    tensors = {
        f"{layer}/{name}": np.ones(shape, np.float32)
        for layer, leaves in shapes.items()
        for name, shape in leaves.items()
    }
    save_file(tensors, tmp_path / "a.safetensors")
    found = load_backbone_weights(
        reference,
        channels=3,
        path=str(tmp_path / "a.safetensors"),
        cache_dir=tmp_path,
        screen=screen,
        image_size=8,
    )
    assert found.params["d"]["kernel"].shape == (6 * 6 * 4, 3)


def test_weights_replace_what_they_have_and_leave_the_rest_as_drawn(every_row, varied_variables):
    drawn, given = init(every_row, jax.random.key(4)), varied_variables(every_row)
    layers = ("stem", "stem_norm", "wide")
    weights = PretrainedWeights(
        {layer: given["params"][layer] for layer in layers},
        "a test",
        "0" * 64,
        "raw",
        "none",
        {"stem_norm": given["batch_stats"]["stem_norm"]},
    )
    found = initial_variables(every_row, 4, weights)
    assert list(found["params"]) == list(drawn["params"])
    for collection in ("params", "batch_stats"):
        for layer, leaves in found[collection].items():
            expected = (given if layer in layers else drawn)[collection][layer]
            jax.tree.map(np.testing.assert_array_equal, leaves, expected)


@pytest.mark.parametrize(
    ("choices", "parts"),
    [
        ({"backbone": "vgg61"}, ["vgg61", "vgg16"]),
        ({"backbone": "mnist_convnet"}, ["mnist_convnet", "weights='random'"]),
        ({"backbone": "mobilenet_v2_torch", "classes": "imagenet"}, ["classifier", "efficientnet_lite0"]),
        ({"backbone": "efficientnet_lite0", "classes": "imagenet", "image_size": 128}, ["128 pixels"]),
        ({"backbone": "efficientnet_lite0", "weights": "/nowhere.h5"}, ["/nowhere.h5"]),
    ],
)
def test_what_cannot_be_loaded_is_said(choices, parts):
    with pytest.raises(UserError) as refused:
        load(**choices, screen=Screen(Console(file=io.StringIO())))
    for part in parts:
        assert part in str(refused.value)

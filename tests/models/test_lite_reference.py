"""EfficientNet-Lite against the PyTorch code whose weights it takes: shapes of tensors, and maps at every stage."""

import json
import math
import os
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from vision_transfer.data.images.resize import resize_bilinear
from vision_transfer.models.backbones.registry import find_backbone
from vision_transfer.models.layer_stack import LayerStack
from vision_transfer.models.layers import DepthwiseConv, GlobalAveragePool, stages
from vision_transfer.models.network import Network, all_parameter_shapes, apply

VARIANTS = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
SHAPE = (2, 75, 90, 3)
CORNER = (slice(None), slice(3), slice(3), slice(8))
# Of the largest value of an array; the reference is float64.
TOLERANCE = 1e-5
# PyTorch computed the features of photos in float32.
FEATURE_TOLERANCE = 1e-4
# Pixels at each side of a photo that the authors cut off, for a network of `side` pixels: side / (side + 32) is kept.
CROP_PADDING = 32
TORCH_NAMES = {"scale": "weight", "bias": "bias", "mean": "running_mean", "variance": "running_var", "kernel": "weight"}


def network_of(name):
    backbone = find_backbone(name)
    return Network(backbone.rows, backbone.classifier, SHAPE[1:])


@pytest.fixture(scope="module")
def torch_shapes(reference_folder):
    """Shapes of tensors by module and name, in the order of the file, for each network."""
    networks = {}
    for network, tensors in json.loads((reference_folder / "efficientnet_lite.json").read_text()).items():
        networks[network] = {}
        for tensor, shape in tensors.items():
            module, _, name = tensor.rpartition(".")
            if name != "num_batches_tracked":
                networks[network].setdefault(module, {})[name] = tuple(shape)
    return networks


def kinds(network):
    return {layer.name: type(layer) for layer in network.layers}


def as_torch(shape, kind):
    """The shape that a kernel of ours has in PyTorch."""
    if len(shape) != 4:
        return tuple(reversed(shape))
    height, width, inputs, outputs = shape
    return (inputs if kind is DepthwiseConv else outputs, 1 if kind is DepthwiseConv else inputs, height, width)


def from_torch(values, kind):
    if values.ndim == 4:
        return values.transpose(2, 3, 0, 1) if kind is DepthwiseConv else values.transpose(2, 3, 1, 0)
    return values.T


def our_shapes(network):
    """Shapes of parameters and statistics of all layers that have any."""
    return {
        layer: shapes | (dict.fromkeys(("mean", "variance"), shapes["scale"]) if "scale" in shapes else {})
        for layer, shapes in all_parameter_shapes(network).items()
    }


def formula_variables(name, network, torch_shapes, formula):
    """The weights of the reference; layers and PyTorch's modules have the same order."""
    variables = {"params": {}, "batch_stats": {}}
    for (layer, shapes), module in zip(our_shapes(network).items(), torch_shapes, strict=True):
        for parameter in shapes:
            theirs = TORCH_NAMES[parameter]
            values = formula.torch_weight(name, f"{module}.{theirs}", torch_shapes[module][theirs])
            collection = "batch_stats" if parameter in ("mean", "variance") else "params"
            variables[collection].setdefault(layer, {})[parameter] = from_torch(values, kinds(network)[layer])
    return variables


@pytest.mark.parametrize("name", VARIANTS)
def test_tensors_are_those_of_the_released_file(name, torch_shapes):
    network, expected = network_of(name), torch_shapes[name]
    for (layer, shapes), (module, theirs) in zip(our_shapes(network).items(), expected.items(), strict=True):
        kind = kinds(network)[layer]
        assert {TORCH_NAMES[key]: as_torch(shape, kind) for key, shape in shapes.items()} == theirs, (layer, module)
    total = sum(math.prod(shape) for shapes in our_shapes(network).values() for shape in shapes.values())
    assert total == {"0": 4_694_024, "1": 5_470_344, "2": 6_150_168}[name[-1]]


# Lite1 has the depth of Lite2 and the widths of Lite0.
@pytest.mark.parametrize("name", (VARIANTS[0], VARIANTS[2]))
def test_maps_are_those_of_the_torch_code_after_every_stage(name, reference, torch_shapes, formula):
    network, arrays = network_of(name), reference("efficientnet_lite")
    ends = [members[-1].name for _, members in stages(network.backbone)]
    stack = LayerStack(network.rows, network.numerics, watched=frozenset(ends))

    @jax.jit
    def logits_and_maps(variables, images):
        logits, state = stack.apply(variables, images, mutable=["watched"])
        return logits, state["watched"]["outputs"]

    variables = formula_variables(name, network, torch_shapes[name], formula)
    logits, found = logits_and_maps(variables, formula.weight("images", "input", SHAPE))
    blocks = [key.split("/")[1] for key in arrays if key.startswith(f"{name}/block_") and key.endswith("/std")]
    for theirs, ours in zip(("stem", *blocks, "head"), ends, strict=True):
        values = np.asarray(found[ours])
        parts = {"mean": values.mean((1, 2, 3)), "std": values.std((1, 2, 3)), "corner": values[CORNER]}
        for part, numbers in parts.items():
            wanted = arrays[f"{name}/{theirs}/{part}"]
            assert np.abs(numbers - wanted).max() / np.abs(wanted).max() < TOLERANCE, (ours, part)
    wanted = arrays[f"{name}/logits"]
    assert np.abs(logits - wanted).max() / np.abs(wanted).max() < TOLERANCE


@pytest.fixture(scope="module")
def released(cached_weights):
    """`released(variant, with_classifier)`: a network and its released weights."""

    def load(variant, with_classifier):
        backbone = find_backbone(variant)
        side = backbone.image_size
        head = backbone.classifier if with_classifier else (GlobalAveragePool("pool"),)
        network = Network(backbone.rows, head, (side, side, 3), backbone.preprocessing)
        weights = cached_weights(variant, network, with_classifier)
        return network, {"params": weights.params, "batch_stats": weights.batch_stats}

    return load


def test_features_of_a_photo_are_those_of_the_torch_code(released, reference, reference_folder, decode_as_tensorflow):
    network, variables = released("efficientnet_lite0", with_classifier=False)
    height, width, _ = network.input_shape
    image = resize_bilinear(decode_as_tensorflow(reference_folder / "cat_chelsea.jpg"), height, width)
    expected = reference("efficientnet_lite")["efficientnet_lite0/stretched/cat_chelsea/features"]
    found = jax.jit(lambda variables, images: apply(network, variables, images))(variables, image[None])[0]
    assert np.abs(found - expected).max() / np.abs(expected).max() < FEATURE_TOLERANCE


@pytest.mark.parametrize("variant", VARIANTS)
def test_classes_of_photos_are_those_of_the_authors(released, reference, reference_folder, variant):
    network, variables = released(variant, with_classifier=True)
    side, expected = network.input_shape[0], reference("efficientnet_lite")
    photos = [reference_folder / "cat_chelsea.jpg"]
    if data := os.environ.get("VISION_TRANSFER_DATA"):
        photos += [path for path in sorted(Path(data, "images").glob("*.jpg")) if path.name != photos[0].name]
    classify = jax.jit(lambda variables, images: jax.nn.softmax(apply(network, variables, images)))
    for photo in photos:
        probabilities = classify(variables, cropped_as_the_authors(photo, side)[None])[0]
        case = f"{variant}/cropped/{photo.stem}"
        np.testing.assert_allclose(
            probabilities[expected[f"{case}/classes"]], expected[f"{case}/probabilities"], atol=FEATURE_TOLERANCE
        )


def cropped_as_the_authors(path, side):
    """The middle of a photo, `(side, side, 3) float32`: cut out and resized as the authors evaluate the network.

    https://github.com/tensorflow/tpu/blob/master/models/official/efficientnet/preprocessing.py
    """
    image = Image.open(path).convert("RGB")
    cut = int(side / (side + CROP_PADDING) * min(image.size))
    left, top = ((length - cut) // 2 for length in image.size)
    image = image.crop((left, top, left + cut, top + cut)).resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(image, np.float32)

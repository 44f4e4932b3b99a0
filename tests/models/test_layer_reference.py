"""Rows and blocks of every kind against Keras and PyTorch: outputs, gradients, moved statistics."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vision_transfer.models.layers import (
    Activate,
    AveragePool,
    BatchNorm,
    Block,
    Conv,
    DepthwiseConv,
    GlobalAveragePool,
    MaxPool,
    Merge,
    SeparableConv,
    ZeroPad,
)
from vision_transfer.models.network import Network, all_parameter_shapes, apply, apply_train

with np.load(Path(__file__).parents[1] / "reference" / "layers.npz") as arrays:
    CASES = json.loads(str(arrays["cases"]))
SHAPE = (2, 8, 9, 3)
INPUT_ENDS = (-8, 8)
FEATURES = 4
# Of the largest value of an array; the reference is float64.
TOLERANCE = 1e-5
KERAS_NAMES = {"scale": "gamma", "bias": "beta", "mean": "moving_mean", "variance": "moving_variance"}

BLOCKS = {
    "block_add": (
        Block(
            "block",
            ((Conv("conv", SHAPE[-1], 3, "same", "linear", bias=False), BatchNorm("norm")), ()),
            Merge("merge", "add"),
        ),
    ),
    "block_add_projected": (
        Block(
            "block",
            (
                (Conv("0_conv", FEATURES, 1, "valid", "linear", strides=2),),
                (
                    Conv("1_conv", FEATURES, 3, "same", "linear", strides=2),
                    Activate("1_relu"),
                    Conv("2_conv", FEATURES, 1, "valid", "linear"),
                ),
            ),
            Merge("merge", "add"),
        ),
        Activate("out"),
    ),
    "block_concat": (
        Block(
            "block",
            ((), (Activate("relu"), Conv("conv", FEATURES, 3, "same", "linear", bias=False))),
            Merge("merge", "concat"),
        ),
    ),
    "block_multiply": (
        Block(
            "block",
            (
                (),
                (
                    GlobalAveragePool("squeeze", keep_axes=True),
                    Conv("reduce", 2, 1, "same", "swish"),
                    Conv("expand", SHAPE[-1], 1, "same", "sigmoid"),
                ),
            ),
            Merge("merge", "multiply"),
        ),
    ),
}


def row(description):
    """Our row for a layer of Keras, or for a function of PyTorch, which all have stride 2."""
    kind = description["kind"]
    if "kernel_size" in description and kind != "max_pool2d":
        return convolution(kind, description)
    match kind:
        case "BatchNormalization":
            return BatchNorm("layer", description["momentum"], description["epsilon"])
        case "MaxPooling2D":
            return MaxPool(
                "layer", description["pool_size"], strides=description["strides"], padding=description["padding"]
            )
        case "max_pool2d":
            return MaxPool("layer", description["kernel_size"], strides=2, padding=margins(description["padding"]))
        case "AveragePooling2D":
            return AveragePool("layer", description["pool_size"])
        case "ZeroPadding2D":
            return ZeroPad("layer", margins(description["padding"]))
        case "ReLU":
            return Activate("layer", "relu6" if "max_value" in description else "relu")
        case "Activation":
            return Activate("layer", description["activation"])
        case _:
            return {"GlobalAveragePooling2D": GlobalAveragePool}[kind]("layer")


def convolution(kind, description):
    size, strides = description["kernel_size"], description.get("strides", 2)
    padding, bias = margins(description["padding"]), description.get("use_bias", False)
    if kind in ("Conv2D", "conv2d"):
        return Conv("layer", FEATURES, size, padding, "linear", strides=strides, bias=bias)
    if kind in ("DepthwiseConv2D", "depthwise"):
        return DepthwiseConv("layer", size, padding, strides=strides, bias=bias)
    return {"SeparableConv2D": SeparableConv}[kind]("layer", FEATURES, size, padding, bias=bias)


def margins(padding):
    """Keras's or PyTorch's padding as ours; names as they are."""
    if isinstance(padding, int):
        return ((padding, padding), (padding, padding))
    return padding if isinstance(padding, str) else tuple(tuple(side) for side in padding)


@pytest.fixture(scope="module")
def expected(reference):
    return reference("layers")


def variables_of(network, case, formula):
    """Parameters and statistics of the reference, under our names."""

    def drawn(layer, name, shape, is_norm):
        return formula.weight(f"{case}/{layer}", KERAS_NAMES[name] if is_norm else name, shape)

    variables = {"params": {}, "batch_stats": {}}
    for layer, shapes in all_parameter_shapes(network).items():
        is_norm = "scale" in shapes
        variables["params"][layer] = {name: drawn(layer, name, shape, is_norm) for name, shape in shapes.items()}
        if is_norm:
            statistics = {name: drawn(layer, name, shapes["scale"], is_norm) for name in ("mean", "variance")}
            variables["batch_stats"][layer] = statistics
    return variables


def computed(case, description, formula):
    """Our arrays of a case, by their names in the reference."""
    training = description.get("training", False)
    rows = BLOCKS[case] if description["kind"] == "block" else (row(description),)
    network = Network(rows, (), SHAPE[1:])
    variables = variables_of(network, case, formula)
    images = formula.draw(f"{case}/input", SHAPE, *INPUT_ENDS)
    keys, weights = jax.random.split(jax.random.key(0), len(images)), jnp.ones(len(images))

    def run(params, values):
        given = {"params": params, "batch_stats": variables["batch_stats"]}
        if training:
            return apply_train(network, given, values, start=None, example_keys=keys, example_weights=weights)
        return apply(network, given, values), {}

    output_shape = (len(images), *network.places[-1].output)
    cotangent = formula.draw(f"{case}/cotangent", output_shape)

    @jax.jit
    def outputs_and_gradients(params, values):
        output, pull, moved = jax.vjp(run, params, values, has_aux=True)
        return output, pull(cotangent), moved

    output, (gradients, image_gradient), moved = outputs_and_gradients(variables["params"], images)
    found = {"output": output, "grad_input": image_gradient}
    for start, tree in (("grad", gradients), ("moved", moved)):
        for layer, leaves in tree.items():
            is_norm = "scale" in variables["params"][layer]
            found |= {
                f"{start}/{layer}/{KERAS_NAMES[name] if is_norm else name}": leaf for name, leaf in leaves.items()
            }
    return found


@pytest.mark.parametrize("case", CASES)
def test_a_row_computes_what_keras_or_pytorch_computes(case, expected, formula):
    found = computed(case, CASES[case], formula)
    wanted = {name.removeprefix(f"{case}/"): values for name, values in expected.items() if name.startswith(f"{case}/")}
    assert set(found) == set(wanted)
    for name, values in found.items():
        assert values.shape == wanted[name].shape, name
        assert np.abs(np.asarray(values) - wanted[name]).max() / np.abs(wanted[name]).max() < TOLERANCE, name

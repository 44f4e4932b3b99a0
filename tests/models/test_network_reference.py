"""Networks with branches against Keras: order and names of layers, shapes, counts, and maps at several depths."""

import json

import jax
import numpy as np
import pytest

from vision_transfer.models.backbones.registry import backbone_rows
from vision_transfer.models.layer_stack import LayerStack
from vision_transfer.models.network import Network, all_parameter_shapes, init

NETWORKS = {"mobilenet_v2": 2_257_984, "xception": 20_861_480, "resnet50": 23_587_712, "densenet121": 7_037_504}
SHAPE = (2, 75, 90, 3)
# Parts of the maps that the reference keeps.
CORNER = (slice(None), slice(3), slice(3), slice(8))
CHANNEL_STRIDE = 8
# Of the largest value of an array; the reference is float64.
TOLERANCE = 1e-5
KERAS_NAMES = {"scale": "gamma", "bias": "beta", "mean": "moving_mean", "variance": "moving_variance"}


def network_of(name):
    return Network(backbone_rows(name), (), SHAPE[1:])


def keras_shapes(network):
    """Shapes of parameters and statistics under Keras's names, for each layer."""
    shapes = all_parameter_shapes(network)
    return {
        layer: dict.fromkeys(KERAS_NAMES.values(), found["scale"]) if "scale" in found else found
        for layer, found in ((place.layer.name, shapes.get(place.layer.name, {})) for place in network.places)
    }


def formula_variables(name, network, formula):
    """The weights of the reference."""
    variables = {"params": {}, "batch_stats": {}}
    for layer, shapes in keras_shapes(network).items():
        ours = {theirs: name for name, theirs in KERAS_NAMES.items()} if "gamma" in shapes else {}
        for parameter, shape in shapes.items():
            collection = "batch_stats" if parameter.startswith("moving") else "params"
            leaves = variables[collection].setdefault(layer, {})
            leaves[ours.get(parameter, parameter)] = formula.weight(f"{name}/{layer}", parameter, shape)
    return variables


@pytest.fixture(scope="module")
def keras_networks(reference_folder):
    """Keras's layers and counts by network; without the input, which is no row of ours."""
    networks = json.loads((reference_folder / "networks.json").read_text())
    for network in networks.values():
        assert network["layers"].pop(0)["class"] == "InputLayer"
    return networks


@pytest.mark.parametrize("name", NETWORKS)
def test_layers_are_keras_s_in_its_order(keras_networks, name):
    network, expected = network_of(name), keras_networks[name]["layers"]
    assert [place.layer.name for place in network.places] == [layer["name"] for layer in expected]
    assert [list(place.output) for place in network.places] == [layer["output"] for layer in expected]
    for layer, found in zip(expected, keras_shapes(network).values(), strict=True):
        assert {parameter: list(shape) for parameter, shape in found.items()} == layer["parameters"], layer["name"]


@pytest.mark.parametrize("name", NETWORKS)
def test_counts_are_keras_s(keras_networks, name):
    variables = init(network_of(name), jax.random.key(0))
    trainable, statistics = (
        sum(np.size(leaf) for leaf in jax.tree.leaves(variables[name])) for name in ("params", "batch_stats")
    )
    assert trainable == keras_networks[name]["trainable"]
    assert trainable + statistics == keras_networks[name]["parameters"] == NETWORKS[name]


@pytest.mark.parametrize("name", NETWORKS)
def test_maps_are_keras_s_at_every_depth(reference, formula, name):
    network, arrays = network_of(name), reference("networks")
    expected = {key.removeprefix(f"{name}/"): value for key, value in arrays.items() if key.startswith(f"{name}/")}
    *inner, last = dict.fromkeys(key.split("/")[0] for key in expected)
    assert last == network.rows[-1].name
    stack = LayerStack(network.rows, network.numerics, watched=frozenset(inner))

    @jax.jit
    def maps(variables, images):
        output, state = stack.apply(variables, images, mutable=["watched"])
        return state["watched"]["outputs"] | {last: output}

    found = maps(formula_variables(name, network, formula), formula.weight("images", "input", SHAPE))
    for layer, values in jax.tree.map(np.asarray, found).items():
        parts = {
            "mean": values.mean((1, 2, 3)),
            "std": values.std((1, 2, 3)),
            "corner": values[CORNER],
            "channels": values[..., ::CHANNEL_STRIDE],
        }
        for part in parts if layer == last else ("mean", "std", "corner"):
            wanted = expected[f"{layer}/{part}"]
            assert np.abs(parts[part] - wanted).max() / np.abs(wanted).max() < TOLERANCE, (layer, part)

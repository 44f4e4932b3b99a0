"""Outputs of layers wherever they are: what a layer gives does not depend on what else is looked at."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vision_transfer.models.heads import head_layers
from vision_transfer.models.layers import Activate, BatchNorm, Conv, MaxPool
from vision_transfer.models.network import Network, apply, apply_watching, init

watching = jax.jit(apply_watching, static_argnums=(0, 3))


@pytest.fixture(scope="module")
def seen(every_row, varied_variables):
    """The network, its variables, two images, and the outputs of all layers, none of which is fused with another."""
    variables = varied_variables(every_row)
    images = np.random.default_rng(0).integers(0, 256, (2, *every_row.input_shape)).astype(np.float32)
    names = tuple(layer.name for layer in every_row.layers)
    return every_row, variables, images, watching(every_row, variables, images, names)


def test_norms_activations_and_sums_follow_from_the_layers_before_them(seen):
    """In numpy, from the outputs of the layers before."""
    network, variables, _, (_, outputs) = seen
    found = {name: np.asarray(values, np.float64) for name, values in outputs.items()}
    norms = {"stem_norm": "stem", "depthwise_norm": "depthwise", "project_norm": "project"}
    for layer in network.layers:
        if isinstance(layer, BatchNorm):
            params, stats = variables["params"][layer.name], variables["batch_stats"][layer.name]
            factor = params["scale"] / np.sqrt(stats["variance"] + layer.epsilon)
            expected = (found[norms[layer.name]] - stats["mean"]) * factor + params["bias"]
            expected = np.maximum(expected, 0) if layer.activation == "relu" else expected
            np.testing.assert_allclose(found[layer.name], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["depthwise_relu6"], np.clip(found["depthwise_norm"], 0, 6), atol=1e-6)
    np.testing.assert_allclose(found["residual_sum"], found["project_norm"] + found["stem_pool"], atol=1e-5)
    np.testing.assert_allclose(found["scaled"], found["residual_sum"] * found["expand"], atol=1e-5)
    np.testing.assert_allclose(found["joined"], np.concatenate([found["scaled"], found["separable"]], -1), atol=1e-5)
    np.testing.assert_allclose(found["halved_sum"], found["short"] + found["mix"], atol=1e-5)
    means = [found[name].mean((1, 2)) for name in ("joined", "halved_sum", "last")]
    np.testing.assert_allclose(found["pooled"], np.concatenate(means, -1), rtol=1e-5, atol=1e-6)
    assert sum(isinstance(layer, Activate) for layer in network.layers) == 2


@pytest.mark.parametrize("layer", ["stem", "depthwise", "mix"])
def test_a_layer_that_is_fused_with_others_gives_the_same_alone(seen, layer):
    network, variables, images, (logits, outputs) = seen
    found, alone = watching(network, variables, images, (layer,))
    np.testing.assert_allclose(alone[layer], outputs[layer], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found, logits, rtol=1e-4, atol=1e-5)


def test_the_second_of_two_chained_convolutions_can_be_watched():
    """Without anyone looking, a CPU computes these three layers image by image."""
    rows = (Conv("first", 64, padding="same"), Conv("second", 64, padding="same"), MaxPool("pool"))
    network = Network(rows, head_layers(2, flatten=True), (128, 128, 3))
    variables = init(network, jax.random.key(0))
    images = np.random.default_rng(0).integers(0, 256, (2, 128, 128, 3)).astype(np.float32)
    _, outputs = watching(network, variables, images, ("second",))
    expected = apply(network, variables, images, stop="second")
    np.testing.assert_allclose(outputs["second"], expected, rtol=1e-4, atol=1e-3)


def test_chained_convolutions_are_activated_before_they_are_pooled():
    """Swish falls and then rises, so that the largest of its values need not be that of the largest input."""
    rows = (Conv("first", 64, padding="same"), Conv("second", 64, padding="same", activation="swish"), MaxPool("pool"))
    network = Network(rows, head_layers(2, flatten=True), (128, 128, 3))
    variables = init(network, jax.random.key(0))
    images = np.random.default_rng(0).normal(0, 30, (2, 128, 128, 3)).astype(np.float32)
    expected = apply(network, variables, apply(network, variables, images, stop="second"), start="pool", stop="pool")
    found = apply(network, variables, images, stop="pool")
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)


def test_a_block_s_name_stands_for_its_merge_and_gradients_are_those_of_the_rows_after_it(seen):
    """A sum passes its gradient on to the last layer of each branch."""
    network, variables, images, (_, outputs) = seen

    def score(perturbations):
        logits, maps = apply_watching(network, variables, images, tuple(perturbations), perturbations)
        return jnp.sum(logits[:, 1]), maps["residual"]

    zeros = jnp.zeros(outputs["residual_sum"].shape)
    gradients, maps = jax.jit(jax.grad(score, has_aux=True))({"residual": zeros, "project_norm": zeros})
    np.testing.assert_allclose(maps, outputs["residual_sum"], rtol=1e-4, atol=1e-5)
    rest = partial(apply, network, variables, start="excited")
    expected = jax.jit(jax.grad(lambda maps: jnp.sum(rest(maps)[:, 1])))(maps)
    for gradient in gradients.values():
        np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())

"""Applying a network from any layer to any layer, in each mode and precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vision_transfer.errors import UserError
from vision_transfer.models.layers import (
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePool,
    MaxPool,
    layer_names,
)
from vision_transfer.models.network import Network, apply, apply_train, init
from vision_transfer.models.precision import Numerics
from vision_transfer.models.preprocessing import preprocess

NETWORK = Network(
    (
        Conv("conv1", 4, padding="same"),
        MaxPool("pool1"),
        Conv("conv2", 5, activation="linear"),
        BatchNorm("norm2", activation="relu"),
        MaxPool("pool2", size=3),
    ),
    (Flatten("flatten"), Dense("hidden", 6, "relu"), Dropout("drop", 0.4), Dense("logits", 2)),
    (18, 16, 3),
    "torch",
)


@pytest.fixture(scope="module")
def variables():
    return init(NETWORK, jax.random.key(0))


@pytest.fixture(scope="module")
def images():
    return jnp.asarray(np.random.default_rng(0).integers(0, 255, (3, 18, 16, 3), dtype=np.uint8))


def test_initialisation_is_keras_s(variables):
    """Glorot uniform kernels, zero biases, norms that do nothing yet."""
    kernel = np.asarray(variables["params"]["hidden"]["kernel"])
    inputs, outputs = kernel.shape
    limit = np.sqrt(6 / (inputs + outputs))
    assert 0.8 * limit < np.abs(kernel).max() <= limit
    assert kernel.std() == pytest.approx(limit / np.sqrt(3), rel=0.15)
    # For a convolution the window counts on both sides.
    limit = np.sqrt(6 / (9 * (3 + 4)))
    assert 0.8 * limit < np.abs(variables["params"]["conv1"]["kernel"]).max() <= limit
    assert not any(leaves["bias"].any() for leaves in variables["params"].values())
    assert (np.asarray(variables["params"]["norm2"]["scale"]) == 1).all()
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
    np.testing.assert_array_equal(variables["batch_stats"]["norm2"]["variance"], 1)


def test_a_layers_draw_depends_on_its_name_alone(variables):
    other = Network(NETWORK.backbone, (*NETWORK.head[:2], Dense("logits", 2)), NETWORK.input_shape)
    found = init(other, jax.random.key(0))["params"]
    for layer in ("conv1", "conv2", "hidden", "logits"):
        np.testing.assert_array_equal(found[layer]["kernel"], variables["params"][layer]["kernel"])


@pytest.mark.parametrize("stop", layer_names(NETWORK.layers)[:-1])
def test_two_parts_are_the_whole(variables, images, stop):
    names = layer_names(NETWORK.layers)
    start = names[names.index(stop) + 1]
    between = apply(NETWORK, variables, images, stop=stop)
    assert between.shape[1:] == NETWORK.shape_before(start)
    found = apply(NETWORK, variables, between, start=start)
    np.testing.assert_allclose(found, apply(NETWORK, variables, images), rtol=1e-5, atol=1e-6)


def test_one_layer_can_run_alone_and_with_its_own_variables(variables):
    values = jnp.asarray(np.random.default_rng(1).normal(size=(2, 6)), jnp.float32)
    leaves = variables["params"]["logits"]
    found = apply(NETWORK, {"params": {"logits": leaves}}, values, start="drop", stop="logits")
    np.testing.assert_allclose(found, values @ leaves["kernel"] + leaves["bias"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["conv3", "Conv1"])
def test_unknown_layers_are_refused(variables, images, name):
    with pytest.raises(UserError, match=f"no layer '{name}'"):
        apply(NETWORK, variables, images, stop=name)


def test_values_that_do_not_fill_a_window_are_dropped(variables, images):
    assert apply(NETWORK, variables, images, stop="pool2").shape == (3, 2, 2, 5)


def test_global_average(images):
    network = Network((GlobalAveragePool("average"),), (), (18, 16, 3))
    found = apply(network, {"params": {}}, images)
    np.testing.assert_allclose(found, np.asarray(images, np.float64).mean((1, 2)), rtol=1e-5)


def test_the_head_sees_the_pixels_of_a_dense_network(images):
    network = Network((), (Flatten("flatten"), Dense("logits", 2)), (18, 16, 3), "rescale")
    variables = init(network, jax.random.key(0))
    expected = np.asarray(images).reshape(3, -1) / 255 @ np.asarray(variables["params"]["logits"]["kernel"])
    np.testing.assert_allclose(apply(network, variables, images), expected, rtol=1e-4, atol=1e-5)


def train_logits(variables, images, seeds, weights=None):
    keys = jax.vmap(jax.random.key)(jnp.asarray(seeds))
    weights = jnp.ones(len(images)) if weights is None else weights
    return apply_train(
        NETWORK,
        variables,
        images,
        start=None,
        example_keys=keys,
        example_weights=weights,
        inference_layers=frozenset({"norm2"}),
    )


def test_dropout_belongs_to_the_example(variables, images):
    """The same example has the same draw in another place and in another batch."""
    first, _ = train_logits(variables, images, [10, 11, 12])
    turned, _ = train_logits(variables, images[::-1], [12, 11, 10])
    alone, _ = train_logits(variables, images[1:2], [11])
    np.testing.assert_allclose(turned[::-1], first, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(alone[0], first[1], rtol=1e-5, atol=1e-6)
    other, _ = train_logits(variables, images, [20, 21, 22])
    assert np.abs(other - first).max() > 1e-3


def test_dropout_keeps_the_mean():
    network = Network((Flatten("flatten"), Dropout("drop", 0.4)), (), (100, 100, 1))
    values = jnp.ones((2, 100, 100, 1))
    found, _ = apply_train(
        network,
        {"params": {}},
        values,
        start=None,
        example_keys=jax.random.split(jax.random.key(0), 2),
        example_weights=jnp.ones(2),
    )
    assert set(np.unique(found)) == {np.float32(0), np.float32(1 / 0.6)}
    assert float(found.mean()) == pytest.approx(1, abs=0.03)
    assert (found[0] != found[1]).any()
    np.testing.assert_array_equal(apply(network, {"params": {}}, values), 1)


def test_bfloat16_is_near_and_gives_float32_logits(variables, images):
    rounded = Network(NETWORK.backbone, NETWORK.head, NETWORK.input_shape, "torch", Numerics("bfloat16"))
    assert apply(rounded, variables, images, stop="pool1").dtype == jnp.bfloat16
    found, exact = apply(rounded, variables, images), apply(NETWORK, variables, images)
    assert found.dtype == jnp.float32
    assert 0 < np.abs(found - exact).max() < 0.1 * np.abs(exact).max()


IMAGES = np.array([[[[0, 128, 255]]]], np.uint8)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("raw", [0, 128, 255]),
        ("rescale", [0, 128 / 255, 1]),
        # keras.applications.vgg16.preprocess_input: BGR, minus the means of ImageNet.
        ("caffe", [255 - 103.939, 128 - 116.779, 0 - 123.68]),
        ("torch", [-0.485 / 0.229, (128 / 255 - 0.456) / 0.224, (1 - 0.406) / 0.225]),
    ],
)
def test_preprocessing(mode, expected):
    found = preprocess(jnp.asarray(IMAGES), mode)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found[0, 0, 0], expected, rtol=1e-6)

"""What a step takes from a batch: weights, statistics and draws of each example, wherever it stands."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vision_transfer.models.network import apply
from vision_transfer.training.optimizers import OptimizerSpec
from vision_transfer.training.step import Chunk, Constants, initial_state, run_steps

RATE = 1e-2
MOMENTUM, EPSILON = 0.99, 1e-3
# Sums in another order agree to this (the same bound as over 1 and 8 devices); a wrong draw of dropout is off by RATE.
REORDERED = 1e-5


@pytest.fixture(scope="module")
def network(small_network):
    return small_network(dropout=0.5, batch_norm=True)


@pytest.fixture(scope="module")
def data(small_data):
    return small_data(8)


@pytest.fixture(scope="module", params=["rmsprop"])
def step(request, network, prepared, data, mesh, examples_of, order_of):
    """The state after one step of an optimizer over some rows with some weights."""
    optimizer = OptimizerSpec(request.param)
    program, trainable, frozen, batch_stats = prepared(network, "below:conv2", optimizer=optimizer)

    def take(rows, weights=None, key=0):
        state = initial_state(program, trainable, batch_stats)
        order = order_of([rows], RATE, None if weights is None else [weights])
        return run_steps(
            state,
            Chunk(examples_of(*data), order, 0, 1),
            Constants(frozen, jax.random.key(key)),
            program=program,
            mesh=mesh,
            resident=True,
        )

    return take


def assert_same(found, expected, tolerance):
    for leaf, other in zip(
        jax.tree.leaves(found._replace(optimizer=())), jax.tree.leaves(expected._replace(optimizer=())), strict=True
    ):
        np.testing.assert_allclose(leaf, other, atol=tolerance)


@pytest.mark.parametrize("step", ["rmsprop", "sgd"], indirect=True)
def test_other_images_in_the_padding_change_no_bit(step):
    padded = step([0, 1, 2, 3, 4, 5], [1, 1, 1, 1, 0, 0])
    assert float(padded.totals.weight) == 4
    assert_same(step([0, 1, 2, 3, 7, 6], [1, 1, 1, 1, 0, 0]), padded, 0)


# Plain steps: RMSprop's first one divides each gradient by its own size, and so magnifies the rounding of the smallest.
@pytest.mark.parametrize("step", ["sgd"], indirect=True)
def test_padding_counts_for_nothing(step):
    padded = step([0, 1, 2, 3, 4, 5], [1, 1, 1, 1, 0, 0])
    assert_same(step([0, 1, 2, 3]), padded, 1e-6)
    counted = step([0, 1, 2, 3, 4, 5])
    moved = jax.tree.map(lambda one, other: np.max(np.abs(one - other)), counted.trainable, padded.trainable)
    assert max(jax.tree.leaves(moved)) > 1e-4


def test_a_batch_has_no_order(step):
    """Dropout is drawn for an example, not for a place in the batch."""
    assert_same(step([5, 3, 1, 4, 0, 2]), step([0, 1, 2, 3, 4, 5]), REORDERED)


def test_dropout_depends_on_the_key(step):
    first, second = (step([0, 1, 2, 3, 4, 5], key=key) for key in (0, 1))
    assert float(jnp.abs(first.trainable["logits"]["kernel"] - second.trainable["logits"]["kernel"]).max()) > RATE / 10


def test_statistics_are_kerass(step, network, prepared, data):
    """Biased moments of the batch, weighed by 1 - momentum (keras/src/layers/normalization/batch_normalization.py)."""
    _, trainable, frozen, batch_stats = prepared(network, "below:conv2")
    variables = {"params": frozen["params"] | trainable, "batch_stats": batch_stats}
    before = np.asarray(apply(network, variables, jnp.asarray(data[0][:4]), stop="conv2"), np.float64)
    mean, variance = before.mean((0, 1, 2)), before.var((0, 1, 2))
    after = step([0, 1, 2, 3, 4, 5], [1, 1, 1, 1, 0, 0]).batch_stats["norm2"]
    np.testing.assert_allclose(after["mean"], (1 - MOMENTUM) * mean, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(after["variance"], MOMENTUM + (1 - MOMENTUM) * variance, rtol=1e-5)
    assert np.abs(mean).min() > 1e-3


def test_inference_uses_the_running_statistics(network, prepared, data):
    _, trainable, frozen, _ = prepared(network, "below:conv2")
    rng = np.random.default_rng(0)
    mean, variance, scale, bias = rng.normal(size=5), rng.uniform(0.1, 2, 5), rng.normal(size=5), rng.normal(size=5)
    params = frozen["params"] | trainable | {"norm2": {"scale": jnp.float32(scale), "bias": jnp.float32(bias)}}
    variables = {
        "params": params,
        "batch_stats": {"norm2": {"mean": jnp.float32(mean), "variance": jnp.float32(variance)}},
    }
    images = jnp.asarray(data[0])
    before = np.asarray(apply(network, variables, images, stop="conv2"), np.float64)
    expected = np.maximum((before - mean) / np.sqrt(variance + EPSILON) * scale + bias, 0)
    np.testing.assert_allclose(apply(network, variables, images, stop="norm2"), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("freeze", ["all", "regex:conv2/.*|logits/.*"])
def test_statistics_of_a_frozen_norm_stay(network, prepared, data, mesh, examples_of, order_of, freeze):
    """An optimizer's mask alone would not hold them; nor do the layers around it that train."""
    program, trainable, frozen, batch_stats = prepared(network, freeze)
    state = run_steps(
        initial_state(program, trainable, batch_stats),
        Chunk(examples_of(*data), order_of([[0, 1, 2, 3]], RATE), 0, 1),
        Constants(frozen, jax.random.key(0)),
        program=program,
        mesh=mesh,
        resident=True,
    )
    np.testing.assert_array_equal(state.batch_stats["norm2"]["mean"], 0)
    np.testing.assert_array_equal(state.batch_stats["norm2"]["variance"], 1)

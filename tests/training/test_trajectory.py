"""Trajectories against a plain training loop over all parameters, and what options may and may not touch."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from vision_transfer import freezing
from vision_transfer.freezing import merge, partition
from vision_transfer.training.optimizers import OptimizerSpec
from vision_transfer.training.step import Chunk, Constants, initial_state, run_steps

BATCH, STEPS = 4, 10
RATE = 1e-3
TOLERANCE = 1e-5


def plain_logits(params, images):
    """The small network, written out."""

    def convolve(values, layer):
        return (
            lax.conv_general_dilated(
                values, layer["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            + layer["bias"]
        )

    def pool(values):
        return lax.reduce_window(values, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")

    values = images.astype(jnp.float32) / 255
    values = pool(jax.nn.relu(convolve(values, params["conv1"])))
    values = pool(jax.nn.relu(convolve(values, params["conv2"])))
    values = jax.nn.relu(convolve(values, params["conv3"])).reshape(len(images), -1)
    values = jax.nn.relu(values @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    return values @ params["logits"]["kernel"] + params["logits"]["bias"]


def plain_training(optimizer, mask, params, images, labels, penalty=lambda params: 0.0):
    """Optax's own way: the gradient of everything, zeros for what is frozen."""
    labelled = {
        layer: {name: "trains" if mask[layer][name] else "frozen" for name in leaves}
        for layer, leaves in params.items()
    }
    transformation = optax.multi_transform({"trains": optimizer, "frozen": optax.set_to_zero()}, labelled)

    def loss(params, batch, targets):
        losses = optax.softmax_cross_entropy_with_integer_labels(plain_logits(params, batch), targets)
        return losses.mean() + penalty(params)

    @jax.jit
    def step(params, state, batch, targets):
        value, gradients = jax.value_and_grad(loss)(params, batch, targets)
        updates, state = transformation.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, value

    state, losses = transformation.init(params), []
    for first in range(0, len(labels), BATCH):
        params, state, value = step(params, state, images[first : first + BATCH], labels[first : first + BATCH])
        losses.append(float(value))
    return params, losses


@pytest.fixture(scope="module")
def data(small_data):
    return small_data(BATCH * STEPS)


@pytest.fixture
def train(data, mesh, examples_of, order_of):
    """Runs all steps in one dispatch; the state after them."""

    def run(program, trainable, frozen, batch_stats, rate=RATE):
        order = order_of(np.arange(BATCH * STEPS).reshape(STEPS, BATCH), rate)
        state = initial_state(program, trainable, batch_stats)
        return run_steps(
            state,
            Chunk(examples_of(*data), order, 0, STEPS),
            Constants(frozen, jax.random.key(0)),
            program=program,
            mesh=mesh,
            resident=True,
        )

    return run


def assert_trees_close(found, expected, tolerance):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for (path, leaf), other in zip(jax.tree.leaves_with_path(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(leaf, other, atol=tolerance, err_msg=jax.tree_util.keystr(path))


# Ours, Optax's, and the learning rate.
OPTIMIZERS = {
    "rmsprop": (OptimizerSpec("rmsprop"), optax.rmsprop(RATE, decay=0.9, eps=1e-7, eps_in_sqrt=True), RATE),
    "momentum": (OptimizerSpec("sgd", momentum=0.9), optax.sgd(0.01, momentum=0.9), 0.01),
    "clipped": (
        OptimizerSpec("sgd", clip_norm=0.05),
        optax.chain(optax.clip_by_global_norm(0.05), optax.sgd(1.0)),
        1.0,
    ),
}


@pytest.mark.parametrize(
    ("freeze", "optimizer"),
    [
        ("none", "rmsprop"),
        ("below:conv3", "rmsprop"),
        ("below:conv3", "momentum"),
        # Of what is frozen no gradient may enter the norm.
        ("all", "clipped"),
        ("regex:.*/bias|conv1/kernel", "clipped"),
    ],
)
def test_the_trajectory_is_that_of_optax_over_all_parameters(small_network, prepared, data, train, freeze, optimizer):
    network = small_network()
    spec, reference, rate = OPTIMIZERS[optimizer]
    program, trainable, frozen, batch_stats = prepared(network, freeze, optimizer=spec)
    mask = freezing.resolve(freeze, network)
    params = merge(frozen["params"], trainable)
    expected, losses = plain_training(reference, mask, params, *data)
    state = train(program, trainable, frozen, batch_stats, rate)
    expected_trainable, untouched = partition(expected, mask)
    assert_trees_close(state.trainable, expected_trainable, TOLERANCE)
    assert_trees_close(untouched, frozen["params"], 0)
    assert float(state.totals.loss / state.totals.weight) == pytest.approx(np.mean(losses), rel=TOLERANCE)
    # The tolerance is small beside what training did.
    moved = jax.tree.map(lambda after, before: float(jnp.abs(after - before).max()), expected_trainable, trainable)
    assert min(jax.tree.leaves(moved)) > 10 * TOLERANCE


@pytest.mark.parametrize("freeze", ["below:conv3", "regex:conv2/bias|logits/kernel"])
def test_penalties_and_decay_are_of_trainable_kernels_only(small_network, prepared, data, train, freeze):
    network, l1, l2, decay = small_network(), 0.02, 0.03, 0.5
    spec = OptimizerSpec("sgd", weight_decay=decay)
    program, trainable, frozen, batch_stats = prepared(network, freeze, optimizer=spec, l1=l1, l2=l2)
    mask = freezing.resolve(freeze, network)

    def is_kernel(params):
        return {layer: {name: name == "kernel" for name in leaves} for layer, leaves in params.items()}

    def penalty(params):
        kernels = [leaves["kernel"] for layer, leaves in params.items() if mask[layer]["kernel"]]
        return sum(l1 * jnp.abs(kernel).sum() + l2 * (kernel**2).sum() for kernel in kernels)

    # A mask over the kernels of all, so that `multi_transform` leaves decay of the frozen ones out.
    reference = optax.chain(optax.add_decayed_weights(decay, mask=is_kernel), optax.sgd(RATE))
    params = merge(frozen["params"], trainable)
    expected, _ = plain_training(reference, mask, params, *data, penalty)
    state = train(program, trainable, frozen, batch_stats)
    assert_trees_close(state.trainable, partition(expected, mask)[0], TOLERANCE)


def test_no_option_touches_what_is_frozen(small_network, prepared, train):
    """Whatever is on: the frozen arrays are the same bits afterwards, and the average is of what trains."""
    spec = OptimizerSpec("rmsprop", momentum=0.9, weight_decay=0.5, clip_norm=1.0)
    network = small_network(batch_norm=True, dropout=0.5)
    program, trainable, frozen, batch_stats = prepared(network, "below:conv3", optimizer=spec, ema=0.9, l1=0.1, l2=0.1)
    before = jax.tree.map(lambda leaf: np.array(leaf, copy=True), (trainable, frozen, batch_stats))
    state = train(program, trainable, frozen, batch_stats)
    # `frozen` and the shared start survive the donation, and are what they were.
    assert_trees_close(jax.tree.map(np.asarray, (trainable, frozen)), before[:2], 0)
    assert set(state.trainable) == set(state.average) == {"conv3", "hidden", "logits"}
    # The batch norm is frozen with its block: its statistics do not move.
    assert_trees_close(state.batch_stats, before[2], 0)
    moved = jax.tree.map(lambda after, start: float(jnp.abs(after - start).max()), state.trainable, trainable)
    assert min(jax.tree.leaves(moved)) > 0


def test_the_average_is_exponential(small_network, prepared, data, mesh, examples_of, order_of):
    program, trainable, frozen, batch_stats = prepared(small_network(), "all", ema=0.8)
    state, expected = initial_state(program, trainable, batch_stats), trainable
    order = order_of(np.arange(12).reshape(3, 4), RATE)
    for step in range(3):
        state = run_steps(
            state,
            Chunk(examples_of(*data), order, step, 1),
            Constants(frozen, jax.random.key(0)),
            program=program,
            mesh=mesh,
            resident=True,
        )
        expected = jax.tree.map(lambda mean, leaf: 0.8 * mean + 0.2 * np.asarray(leaf), expected, state.trainable)
    assert_trees_close(state.average, expected, 1e-6)


def test_what_is_donated_is_a_copy(small_network, prepared, data, mesh, examples_of, order_of):
    """The state that a step consumes is gone; the parameters that it was made from are not, for any number of runs."""
    program, trainable, frozen, batch_stats = prepared(small_network(batch_norm=True), "none", ema=0.9)
    shared = jax.tree.map(lambda leaf: np.array(leaf, copy=True), (trainable, batch_stats))
    order, ends = order_of([[0, 1, 2, 3]], RATE), []
    for _ in range(2):
        state = initial_state(program, trainable, batch_stats)
        after = run_steps(
            state,
            Chunk(examples_of(*data), order, 0, 1),
            Constants(frozen, jax.random.key(0)),
            program=program,
            mesh=mesh,
            resident=True,
        )
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves((state.trainable, state.optimizer, state.average)))
        ends.append(jax.tree.map(np.asarray, after.trainable))
    assert_trees_close((trainable, batch_stats), shared, 0)
    assert_trees_close(ends[1], ends[0], 0)

"""A frozen batch norm's running statistics do not move, whatever trains around it; those of one that trains do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vision_transfer.models.network import apply_train
from vision_transfer.train.optimizers import OptimizerSpec
from vision_transfer.train.step import Chunk, Constants, initial_state, run_steps

BATCH = 4
# norm2 stands between conv2 and conv3.
FROZEN = {
    "in the prefix": "below:conv3",
    "in the middle": "only:conv1",
    "right behind what trains": "regex:conv2/.*",
    "with all other layers training": "regex:(?!norm2/).*",
}
TRAINING = {"with its block": "only:norm2", "one of its parameters": "regex:(norm2/bias|logits/.*)"}


@pytest.fixture(scope="module")
def network(small_network):
    return small_network(batch_norm=True)


@pytest.fixture(scope="module")
def statistics_after(network, small_data, prepared):
    """The statistics after a training pass, where they start away from what the data would give."""

    def run(freeze):
        program, trainable, frozen, batch_stats = prepared(network, freeze)
        before = jax.tree.map(lambda leaf: leaf + 0.25, batch_stats)
        params = jax.tree.map(jnp.asarray, frozen["params"])
        for layer, leaves in trainable.items():
            params[layer] = {**params.get(layer, {}), **leaves}
        _, after = apply_train(
            network,
            {"params": params, "batch_stats": before},
            jnp.asarray(small_data(BATCH)[0]),
            start=None,
            example_keys=jax.random.split(jax.random.key(0), BATCH),
            example_weights=jnp.ones(BATCH),
            inference_layers=program.inference_layers,
        )
        return before, after

    return run


@pytest.mark.parametrize("freeze", FROZEN.values(), ids=list(FROZEN))
def test_frozen_ones_rest(statistics_after, freeze):
    before, after = statistics_after(freeze)
    assert jax.tree.all(jax.tree.map(np.array_equal, after, before))


@pytest.mark.parametrize("freeze", TRAINING.values(), ids=list(TRAINING))
def test_those_that_train_move(statistics_after, freeze):
    before, after = statistics_after(freeze)
    assert not any(jax.tree.leaves(jax.tree.map(np.allclose, after, before)))


@pytest.mark.parametrize("freeze", ["regex:(?!norm2/).*", "none"])
def test_steps_keep_to_it(network, small_data, prepared, mesh, examples_of, order_of, freeze):
    """Through the whole step, with momentum, decay and an average of what trains."""
    spec = OptimizerSpec("rmsprop", momentum=0.9, weight_decay=0.1)
    program, trainable, frozen, batch_stats = prepared(network, freeze, optimizer=spec, ema=0.9)
    order = order_of(np.arange(2 * BATCH).reshape(2, BATCH), 1e-2)
    state = initial_state(program, trainable, batch_stats)
    examples = examples_of(*small_data(2 * BATCH))
    state = run_steps(
        state,
        Chunk(examples, order, 0, 2),
        Constants(frozen, jax.random.key(0)),
        program=program,
        mesh=mesh,
        resident=True,
    )
    moved = jax.tree.map(lambda after, start: not np.array_equal(after, start), state.batch_stats, batch_stats)
    assert set(jax.tree.leaves(moved)) == {freeze == "none"}

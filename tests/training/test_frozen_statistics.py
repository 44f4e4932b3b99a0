"""A frozen batch norm's running statistics do not move, whatever trains around it; those of one that trains do.

With `batch_norm_statistics` pretrained none of the backbone's moves, at any mask of an ablation.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vision_transfer import freezing
from vision_transfer.models.layers import BatchNorm, Block, Conv, Dense, GlobalAveragePool, Merge
from vision_transfer.models.network import Network, apply_train
from vision_transfer.tasks.ablation.masks import expanded
from vision_transfer.training.optimizers import OptimizerSpec
from vision_transfer.training.step import Chunk, Constants, initial_state, run_steps

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


BRANCH = (Conv("conv2", 4, padding="same", activation="linear", stage="two"), BatchNorm("norm2", stage="two"))
BLOCKS = Network(
    (
        Conv("conv1", 4, padding="same", activation="linear", stage="one"),
        BatchNorm("norm1", activation="relu", stage="one"),
        Block("block2", (BRANCH, ()), Merge("add2", "add"), "two"),
        BatchNorm("norm3", activation="relu", stage="three"),
    ),
    (GlobalAveragePool("pool"), BatchNorm("head_norm"), Dense("logits", 3)),
    (8, 8, 3),
    preprocessing="rescale",
)
NORMS = ("norm1", "norm2", "norm3", "head_norm")
MASKS = expanded(("every_cut", "every_block"), BLOCKS, "dense")


@pytest.fixture(scope="module")
def moved_norms(prepared, small_data, mesh, examples_of, order_of):
    """The norms whose statistics two steps change by at least one bit."""

    def run(freeze, *, pretrained_statistics):
        program, trainable, frozen, before = prepared(BLOCKS, freeze)
        mask = freezing.resolve(freeze, BLOCKS)
        layers = freezing.inference_layers(BLOCKS, mask, pretrained_statistics=pretrained_statistics)
        program = replace(program, inference_layers=layers)
        # Their start is away from what the data would give; training gives its own buffers back.
        before = jax.tree.map(lambda leaf: np.asarray(leaf) + np.float32(0.25), before)
        order = order_of(np.arange(2 * BATCH).reshape(2, BATCH), 1e-2)
        chunk = Chunk(examples_of(*small_data(2 * BATCH)), order, 0, 2)
        state = initial_state(program, trainable, jax.tree.map(jnp.asarray, before))
        constants = Constants(frozen, jax.random.key(0))
        state = run_steps(state, chunk, constants, program=program, mesh=mesh, resident=True)
        after = jax.tree.map(np.asarray, state.batch_stats)
        return {
            name
            for name in NORMS
            if any(after[name][kind].tobytes() != before[name][kind].tobytes() for kind in after[name])
        }

    return run


def test_every_mask_is_one_of_them():
    # Six cuts through five layers with parameters, and three blocks.
    assert len(MASKS) == 6 + 3
    assert {"all", "none", "below:norm2", "only:conv2,norm2"} <= set(MASKS)


@pytest.mark.parametrize("freeze", MASKS)
def test_pretrained_statistics_keep_every_bit_at_every_mask(moved_norms, freeze):
    # The head's norm has no pretrained statistics.
    assert moved_norms(freeze, pretrained_statistics=True) == {"head_norm"}


@pytest.mark.parametrize("freeze", MASKS)
def test_statistics_of_batches_move_where_a_norm_trains(moved_norms, freeze):
    mask = freezing.resolve(freeze, BLOCKS)
    assert moved_norms(freeze, pretrained_statistics=False) == {name for name in NORMS if any(mask[name].values())}

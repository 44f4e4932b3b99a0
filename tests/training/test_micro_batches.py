"""Steps and forward passes on a CPU by micro-batches: nothing changes, and fewer maps are in memory."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from vision_transfer.models import network as network_module
from vision_transfer.models.layers import (
    BatchNorm,
    Block,
    Conv,
    Dense,
    DepthwiseConv,
    Dropout,
    GlobalAveragePool,
    Merge,
)
from vision_transfer.models.network import Network, apply, apply_frozen, init
from vision_transfer.models.ops import microbatch
from vision_transfer.training.optimizers import OptimizerSpec
from vision_transfer.training.step import Chunk, Constants, initial_state, run_steps

BATCH, SIZE, CLASSES = 6, 8, 3
NORMS = frozenset({"norm1", "norm2"})
# So that a step subtracts the gradient itself.
PLAIN = OptimizerSpec("sgd", momentum=0.0)


FIRST = (
    Conv("conv1", 4, padding="same", strides=2, activation="linear", bias=False),
    BatchNorm("norm1", activation="relu6"),
)
SECOND = {
    "light": DepthwiseConv("second", padding="same", activation="linear", bias=False),
    "blocks": Block(
        "second",
        ((Conv("conv2", 4, padding="same", activation="linear", bias=False),), ()),
        Merge("second_add", "add"),
    ),
}


@pytest.fixture(params=SECOND)
def network(request):
    backbone = (*FIRST, SECOND[request.param], BatchNorm("norm2", activation="relu6"))
    head = (GlobalAveragePool("average"), Dropout("drop", 0.5), Dense("logits", CLASSES))
    return Network(backbone, head, (SIZE, SIZE, 3), preprocessing="rescale")


@pytest.fixture
def lowered_step(network, small_data, prepared, mesh, examples_of, order_of, monkeypatch):
    """A step whose micro-batches have at most so many images; the last example of the batch is padding."""

    def lower(images, freeze, inference_layers=NORMS):
        monkeypatch.setattr(microbatch, "GRADIENT_POSITIONS", images * SIZE * SIZE)
        jax.clear_caches()
        options = {"l2": 0.1, "class_weights": (1.0, 2.0, 0.5), "label_smoothing": 0.1, "optimizer": PLAIN}
        program, trainable, frozen, batch_stats = prepared(network, freeze, **options)
        program = replace(program, inference_layers=inference_layers)
        order = order_of(np.arange(BATCH)[None], 1.0)
        order = order._replace(weights=order.weights * (np.arange(BATCH) < BATCH - 1))
        arguments = (
            initial_state(program, trainable, batch_stats),
            Chunk(examples_of(*small_data(BATCH)), order, 0, 1),
            Constants(frozen, jax.random.key(0)),
        )
        return run_steps.lower(*arguments, program=program, mesh=mesh, resident=True), arguments

    return lower


@pytest.mark.parametrize(
    ("network", "freeze"),
    [("light", "none"), ("light", "below:second"), ("light", "only:norm1"), ("blocks", "none")],
    indirect=["network"],
)
def test_micro_batches_change_nothing(lowered_step, freeze):
    def state(images):
        lowered, arguments = lowered_step(images, freeze)
        return lowered.compile()(*arguments)

    whole = state(BATCH)
    for images in (1, 2, 3):
        jax.tree.map(lambda leaf, other: np.testing.assert_allclose(leaf, other, 1e-5, 1e-6), state(images), whole)


def test_norms_that_move_see_the_whole_batch(lowered_step):
    """The statistics are those of all examples, so the program is the one without micro-batches."""
    assert lowered_step(1, "none", frozenset())[0].as_text() == lowered_step(BATCH, "none", frozenset())[0].as_text()
    assert lowered_step(1, "none")[0].as_text() != lowered_step(BATCH, "none")[0].as_text()


def test_micro_batches_hold_fewer_maps(lowered_step):
    one, whole = (lowered_step(images, "none")[0].compile().memory_analysis() for images in (1, BATCH))
    assert one.temp_size_in_bytes < whole.temp_size_in_bytes / 2


@pytest.mark.parametrize("scale", [1, 2, 8])
def test_a_forward_pass_by_micro_batches_changes_nothing(network, small_data, monkeypatch, scale):
    """`scale` 1: no row of the network with blocks is early; 2: all maps are; 8: the average, too, which has no map."""
    images, variables = small_data(BATCH)[0], init(network, jax.random.key(0))

    def outputs(some, **limits):
        for name, value in {"EARLY_POSITIONS": some * SIZE**2, "POSITIONS": some * SIZE**2, **limits}.items():
            monkeypatch.setattr(network_module, name, value)
        lowered = jax.jit(lambda images: apply(network, variables, images)).lower(images)
        return lowered.as_text(), lowered.compile()(images)

    whole_text, whole = outputs(BATCH, EARLY_SCALE=scale)
    for some in (1, 2, 3):
        text, found = outputs(some, EARLY_SCALE=scale)
        np.testing.assert_allclose(found, whole, 1e-5, 1e-6)
        light = any(isinstance(row, DepthwiseConv) for row in network.rows)
        assert ("while" in text) == (light or scale > 1)
    assert "while" not in whole_text


def test_the_frozen_rows_with_large_maps_run_apart(network, monkeypatch, small_data):
    images, variables = small_data(BATCH)[0], init(network, jax.random.key(0))
    monkeypatch.setattr(network_module, "EARLY_SCALE", 2)
    _, start = apply_frozen(network, variables, images, start=None, cut="logits")
    assert start == ("logits" if isinstance(network.rows[2], DepthwiseConv) else "average")

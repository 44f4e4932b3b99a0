"""Averages of several layers at the end of a backbone, and where such a network can start."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vision_transfer.errors import UserError
from vision_transfer.feature_cache.cacheable import cached_layer
from vision_transfer.freezing import cut, resolve
from vision_transfer.models.backbones.registry import backbone_rows
from vision_transfer.models.heads import head_layers
from vision_transfer.models.layers import (
    BatchNorm,
    Block,
    Conv,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePool,
    MaxPool,
    Merge,
    PoolLayers,
)
from vision_transfer.models.network import Network, apply, apply_frozen, apply_train, init, prepared_kernels
from vision_transfer.models.ops.windows import grid_windows

SHAPE = (36, 36, 3)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (3, *SHAPE)).astype(np.float32)


def network_of(backbone, **options):
    return Network(backbone_rows(backbone, **options), head_layers(2, flatten=False), SHAPE, "rescale")


@pytest.mark.parametrize(
    ("backbone", "first", "count"),
    [("vgg16", "block1_pool", 5), ("efficientnet_lite0", "stem_activation", 9), ("mnist_convnet", "pool1", 3)],
)
def test_by_default_the_ends_of_stages_are_pooled(backbone, first, count):
    row = backbone_rows(backbone, pooled_layers=())[-1]
    assert (row.layers[0], len(row.layers)) == (first, count)
    assert row.layers[-1] == backbone_rows(backbone)[-1].name


def test_the_order_is_that_of_the_network():
    assert backbone_rows("vgg16", pooled_layers=("block5_pool", "block2_conv1"))[-1].layers == (
        "block2_conv1",
        "block5_pool",
    )


@pytest.mark.parametrize("rows", [(PoolLayers("pooled", ("conv2",)),), (Flatten("flat"), PoolLayers("p", ("flat",)))])
def test_what_cannot_be_pooled_is_refused(rows):
    with pytest.raises(UserError, match=r"no row 'conv2' before it|takes \(height, width, channels\)"):
        Network((Conv("conv1", 4), *rows), (), SHAPE)
    with pytest.raises(UserError, match=r"config\.model\.pooled_layers: vgg16 has no row 'block6'"):
        backbone_rows("vgg16", pooled_layers=("block6",))


def test_a_convolution_before_its_norm_can_be_pooled_with_kernels_that_a_cpu_prepares(varied_variables):
    rows = backbone_rows("convnet_150", batch_norm=True, pooled_layers=("conv2", "pool4"))
    network = Network(rows, head_layers(2, flatten=False), (96, 96, 3), "rescale")
    images = np.random.default_rng(0).integers(0, 256, (2, 96, 96, 3)).astype(np.float32)
    variables = varied_variables(network)
    prepared = prepared_kernels(network, variables, batch=len(images))
    expected = apply(network, variables, images)
    assert jax.default_backend() != "cpu" or "conv2" in prepared
    found = apply(network, {**variables, "prepared": prepared}, images)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_early_rows_may_end_before_a_norm_that_is_pooled_later(varied_variables):
    """The kernel that a CPU prepares has the norm's factor, and other rows apply the norm."""
    block = Block("block", ((Conv("c2", 32, padding="same"),), ()), Merge("sum", "add"), "s2")
    rows = (
        Conv("c0", 32, stage="s1"),
        Conv("c1", 32, activation="linear", stage="s1"),
        BatchNorm("n1", activation="relu", stage="s1"),
        block,
        PoolLayers("pooled", ("n1", "block")),
    )
    network = Network(rows, (Dense("logits", 2),), (64, 64, 3), "rescale")
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype(np.float32)
    variables = varied_variables(network)
    prepared = prepared_kernels(network, variables, batch=len(images))
    assert jax.default_backend() != "cpu" or "c1" in prepared
    expected = apply(network, variables, images)
    found = apply(network, {**variables, "prepared": prepared}, images)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_pooling_the_last_layer_alone_is_the_global_average(images, varied_variables):
    one = network_of("mnist_convnet", pooled_layers=("conv3",))
    average = network_of("mnist_convnet", global_average=True)
    assert isinstance(average.backbone[-1], GlobalAveragePool)
    variables = varied_variables(one)
    np.testing.assert_allclose(apply(one, variables, images), apply(average, variables, images), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("grid", "rows", "columns"),
    [
        # 7 rows cannot be halved, so that the quarters share the middle one
        (2, [(0, 4), (3, 7)], [(0, 4), (4, 8)]),
        (3, [(0, 3), (2, 5), (4, 7)], [(0, 4), (2, 6), (4, 8)]),
        (9, [(at, at + 1) for at in range(7)], [(at, at + 1) for at in range(8)]),
    ],
)
def test_a_grid_keeps_places_apart(images, grid, rows, columns):
    """Each cell's means, row by row; `PoolLayers` of several layers has them one layer after the other."""
    network = Network((Conv("conv", 5), PoolLayers("pooled", ("conv", "conv"), grid)), (), (9, 10, 3))
    variables = init(network, jax.random.key(0))
    maps = np.asarray(apply(network, variables, images[:, :9, :10], stop="conv"))
    expected = [maps[:, top:bottom, left:right].mean((1, 2)) for top, bottom in rows for left, right in columns]
    assert network.shape_after("pooled") == (2 * len(rows) * len(columns) * 5,)
    found = apply(network, variables, images[:, :9, :10])
    np.testing.assert_allclose(found, np.concatenate(2 * expected, axis=-1), rtol=1e-5, atol=1e-6)


@given(extent=st.integers(1, 300), count=st.integers(1, 20))
def test_cells_are_equal_and_cover_everything(extent, count):
    cells, size, stride = grid_windows(extent, count)
    assert cells == min(count, extent)
    assert 1 <= stride <= size < 2 * stride + cells
    assert (cells - 1) * stride + size == extent


def test_a_grid_on_the_last_map_alone():
    row = backbone_rows("vgg16", global_average=True, pooling_grid=2)[-1]
    assert row == PoolLayers("pooled_layers", ("block5_pool",), 2)


@pytest.mark.parametrize(
    ("spec", "first", "cached"),
    [
        ("all", "head_logits", "pooled_layers"),
        # block2_pool is pooled, so that a step cannot start behind it, but may before it.
        ("below:block5_conv1", "block5_conv1", "block1_pool"),
        ("below:block2_conv1", "block2_conv1", "block1_pool"),
        ("none", "block1_conv1", None),
    ],
)
def test_features_are_cached_before_the_first_pooled_layer_or_behind_the_last(spec, first, cached):
    network = network_of("vgg16", pooled_layers=("block2_pool", "block5_pool"))
    mask = resolve(spec, network)
    assert cut(network, mask) == first
    assert cached_layer(network, mask) == cached


def test_training_from_a_cut_between_pooled_layers_computes_the_same(every_row, varied_variables):
    """The frozen rows of a light network run apart from the others, but not apart from what a later row pools."""
    variables, images = varied_variables(every_row), np.full((2, *every_row.input_shape), 90, np.float32)
    assert every_row.rows[every_row.start_before(every_row.index("same_pool"))].name == "grown"
    assert every_row.start_before(every_row.index("flat")) == every_row.index("flat")

    @jax.jit
    def logits(images):
        keys = jax.vmap(jax.random.key)(np.arange(2))
        options = {
            "example_keys": keys,
            "example_weights": np.ones(2),
            "inference_layers": frozenset(variables["batch_stats"]),
        }
        network = replace(every_row, head=tuple(row for row in every_row.head if not isinstance(row, Dropout)))
        inputs, start = apply_frozen(network, variables, images, start=None, cut="same_pool")
        assert start == "grown"
        return apply_train(network, variables, inputs, start=start, **options)[0], apply(network, variables, images)

    found, expected = logits(images)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_row_of_a_head_may_pool_rows_of_the_backbone(images):
    head = (PoolLayers("pooled", ("conv", "pool")), Dense("head_logits", 2))
    network = Network((Conv("conv", 4), MaxPool("pool")), head, SHAPE)
    assert apply(network, init(network, jax.random.key(0)), images).shape == (3, 2)
    assert cached_layer(network, resolve("all", network)) == "pooled"

"""The first two layers image by image: the same numbers, less memory, and only on a CPU."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from vision_transfer.models.layer_stack import chained_with
from vision_transfer.models.layers import Conv, MaxPool
from vision_transfer.models.ops.convolution import chain, convolution

BATCH, EXTENT, CHANNELS = 8, 64, 64
FIRST = partial(convolution, padding="same", relu=True, pool=False)
SECOND = partial(convolution, padding="same", relu=True, pool=True)


@pytest.fixture(scope="module")
def arrays():
    random = np.random.default_rng(0)
    shapes = ((BATCH, EXTENT, EXTENT, 3), (3, 3, 3, CHANNELS), (CHANNELS,), (3, 3, CHANNELS, CHANNELS), (CHANNELS,))
    return [0.1 * random.standard_normal(shape, dtype=np.float32) for shape in shapes]


def loss(chained, images, kernel, bias, second_kernel, second_bias):
    first, second = partial(FIRST, kernel=kernel, bias=bias), partial(SECOND, kernel=second_kernel, bias=second_bias)
    return jnp.sum(jnp.sin(chain(first, second, images) if chained else second(first(images))))


@pytest.fixture(scope="module")
def compiled(arrays):
    """Loss and all gradients, chained and not."""
    return [
        jax.jit(jax.value_and_grad(partial(loss, chained), range(5))).lower(*arrays).compile()
        for chained in (True, False)
    ]


def test_values_and_gradients_are_those_of_the_two_layers(compiled, arrays):
    chained, plain = (jax.tree.leaves(program(*arrays)) for program in compiled)
    for got, wanted in zip(chained, plain, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


def test_the_first_output_is_never_held_for_the_whole_batch(compiled):
    chained, plain = (program.memory_analysis().temp_size_in_bytes for program in compiled)
    first_output = 4 * BATCH * EXTENT * EXTENT * CHANNELS
    assert plain - chained > first_output / 2


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_other_platforms_get_whole_batches(platform, arrays):
    program = export.export(jax.jit(jax.grad(partial(loss, True), range(5))), platforms=[platform])(*arrays)
    assert "stablehlo.while" not in program.mlir_module()


@pytest.mark.parametrize(
    ("layers", "extent", "expected"),
    [
        ((Conv("a", 64, padding="same"), Conv("b", 64, padding="same"), MaxPool("pool")), 180, "b"),
        ((Conv("a", 64, padding="same"), Conv("b", 64, padding="same"), MaxPool("pool")), 60, None),
        ((Conv("a", 64, padding="same"), Conv("b", 64, padding="same")), 180, None),
        ((Conv("a", 64, padding="same"), MaxPool("pool"), Conv("b", 64, padding="same")), 180, None),
        ((Conv("a", 64, padding="same"),), 180, None),
    ],
    ids=["VGG's", "small maps", "not pooled", "pooled at once", "alone"],
)
def test_which_layers_are_chained(layers, extent, expected):
    images = jax.ShapeDtypeStruct((2, extent, extent, 3), jnp.float32)
    following = chained_with(layers, 0, images)
    assert (None if following is None else following.name) == expected


def test_layers_of_other_types_or_many_channels_are_not_chained():
    layers = (Conv("a", 64, padding="same"), Conv("b", 64, padding="same"), MaxPool("pool"))
    assert chained_with(layers, 0, jax.ShapeDtypeStruct((2, 180, 180, 3), jnp.bfloat16)) is None
    assert chained_with(layers, 0, jax.ShapeDtypeStruct((2, 180, 180, 64), jnp.float32)) is None

"""`augment_batch` as a whole: what it depends on, the bank, transformations of JAX, export, bad configs."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vision_transfer.data.augmentation import (
    AugmentConfig,
    affine_matrices,
    augment_batch,
    bank_variant,
    draw_parameters,
    jitter_colours,
    warp,
)
from vision_transfer.errors import UserError

KEY = jax.random.key(3)
CONFIGS = {
    "keras_layers": AugmentConfig("keras_layers", flip="horizontal", rotation=0.1, zoom=0.2),
    "image_data_generator": AugmentConfig(
        "image_data_generator",
        flip="horizontal",
        rotation=40,
        height_shift=0.2,
        width_shift=0.2,
        shear=0.2,
        zoom=0.2,
    ),
    "everything": AugmentConfig(
        "keras_layers",
        flip="horizontal_and_vertical",
        rotation=0.1,
        height_shift=0.1,
        width_shift=0.1,
        shear=0.1,
        zoom=0.1,
        fill="constant",
        fill_value=128.0,
        crop_scale=(0.5, 1.0),
        brightness=0.2,
        contrast=0.2,
        saturation=0.2,
    ),
}
IMAGES = np.random.default_rng(0).integers(0, 256, (6, 21, 26, 3), dtype=np.uint8)
IDS = np.asarray([3, 2**32 - 5, 0, 11, 12, 700], np.uint32)

augment = jax.jit(augment_batch, static_argnames="config")
draw = jax.jit(draw_parameters, static_argnames=("config", "height", "width"))


@pytest.mark.parametrize("name", list(CONFIGS))
def test_it_is_draw_warp_and_jitter(name):
    config = CONFIGS[name]
    affine, colours = draw(config, KEY, 2, IDS, 21, 26)
    matrices = jax.jit(affine_matrices, static_argnums=(1, 2, 3))(affine, config.preset, 21, 26)
    expected = jax.jit(warp, static_argnames="config")(IMAGES, matrices, config)
    if config.changes_colours:
        expected = jax.jit(jitter_colours, static_argnames="config")(expected, colours, config)
    result = augment(IMAGES, IDS, KEY, 2, config)
    assert result.dtype == jnp.float32 and result.shape == IMAGES.shape
    np.testing.assert_allclose(result, expected, rtol=0, atol=0.01)
    assert np.abs(np.asarray(result) - IMAGES).max() > 10


@pytest.mark.parametrize("name", list(CONFIGS))
def test_an_image_does_not_depend_on_its_batch(name):
    config = CONFIGS[name]
    whole = np.asarray(augment(IMAGES, IDS, KEY, 5, config))
    order = np.asarray([4, 1, 5, 0, 3, 2])
    shuffled = np.asarray(augment(IMAGES[order], IDS[order], KEY, 5, config))
    np.testing.assert_allclose(shuffled, whole[order], rtol=0, atol=0.01)
    parts = [np.asarray(augment(IMAGES[part], IDS[part], KEY, 5, config)) for part in (slice(2), slice(2, 6))]
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=0, atol=0.01)


@pytest.mark.parametrize(
    "config",
    [
        AugmentConfig(),
        AugmentConfig("keras_layers"),
        AugmentConfig("image_data_generator"),
        AugmentConfig("none", flip="horizontal", rotation=0.1, zoom=0.2, brightness=0.4),
    ],
)
def test_nothing_on_changes_nothing(config):
    result = augment(IMAGES, IDS, KEY, 0, config)
    assert result.dtype == jnp.float32
    np.testing.assert_array_equal(result, IMAGES)
    floats = IMAGES.astype(np.float32) + 0.25
    np.testing.assert_array_equal(augment(floats, IDS, KEY, 0, config), floats)


def test_flips_alone_give_the_picture_or_its_mirror_image():
    config = AugmentConfig("keras_layers", flip="horizontal")
    flipped = np.asarray(draw(config, KEY, 1, IDS, 21, 26)[0].flip_horizontal)
    assert flipped.any() and not flipped.all()
    expected = np.where(flipped[:, None, None, None], IMAGES[:, :, ::-1], IMAGES)
    np.testing.assert_array_equal(augment(IMAGES, IDS, KEY, 1, config), expected)


def test_bank_repeats_its_variants():
    config = CONFIGS["keras_layers"]
    bank = 3
    epochs = [np.asarray(augment(IMAGES, IDS, KEY, bank_variant(epoch, bank), config)) for epoch in range(7)]
    for epoch, pictures in enumerate(epochs):
        np.testing.assert_array_equal(pictures, epochs[epoch % bank])
    for first in range(bank):
        for second in range(first):
            assert np.abs(epochs[first] - epochs[second]).mean() > 1
    assert [bank_variant(epoch, 0) for epoch in range(4)] == [0, 1, 2, 3]
    assert int(jax.jit(bank_variant, static_argnums=1)(jnp.uint32(9), 4)) == 1


def test_epoch_may_be_traced_and_mapped():
    config = CONFIGS["image_data_generator"]
    variants = jax.jit(jax.vmap(lambda epoch: augment_batch(IMAGES, IDS, KEY, epoch, config)))(jnp.arange(3))
    for epoch in range(3):
        np.testing.assert_allclose(variants[epoch], augment(IMAGES, IDS, KEY, epoch, config), rtol=0, atol=0.01)


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
@pytest.mark.parametrize("name", list(CONFIGS))
def test_it_lowers_for_every_platform_without_scatter_or_host(name, platform):
    def program(images, example_ids, key_data, epoch):
        return augment_batch(images, example_ids, jax.random.wrap_key_data(key_data), epoch, CONFIGS[name])

    arguments = (
        jax.ShapeDtypeStruct((32, 150, 150, 3), jnp.uint8),
        jax.ShapeDtypeStruct((32,), jnp.uint32),
        jax.ShapeDtypeStruct((2,), jnp.uint32),
        jax.ShapeDtypeStruct((), jnp.int32),
    )
    exported = jax.export.export(jax.jit(program), platforms=[platform])(*arguments)
    operations = set(re.findall(r"stablehlo\.(\w+)|custom_call @(\w+)", exported.mlir_module()))
    assert ("gather", "") in operations and ("scatter", "") not in operations
    assert not any("callback" in target for _, target in operations)
    assert exported.out_avals[0].shape == (32, 150, 150, 3)


def test_a_batch_split_over_devices_needs_no_communication():
    """The batch's axis is a batch axis of every operation, the reading of pixels included."""
    mesh = jax.sharding.AbstractMesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,))
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    images = jax.ShapeDtypeStruct((4, 21, 26, 3), jnp.uint8, sharding=split)
    ids = jax.ShapeDtypeStruct((4,), jnp.uint32, sharding=split)
    with jax.sharding.use_abstract_mesh(mesh):
        step = functools.partial(augment_batch, key=KEY, epoch=1, config=CONFIGS["everything"])
        result = jax.eval_shape(step, images, ids)
    assert result.sharding.spec == jax.sharding.PartitionSpec("data", None, None, None)


def test_config_is_hashable_and_equal_by_value():
    assert hash(AugmentConfig("keras_layers", zoom=0.2)) == hash(AugmentConfig("keras_layers", zoom=0.2))
    assert AugmentConfig("keras_layers").fill_mode == "reflect"
    assert AugmentConfig("image_data_generator").fill_mode == "nearest"
    assert AugmentConfig("keras_layers", fill="wrap").fill_mode == "wrap"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("preset", "keras"),
        ("flip", True),
        ("fill", "mirror"),
        ("interpolation", "bicubic"),
        ("rotation", 36),
        ("rotation", -0.1),
        ("rotation", float("nan")),
        ("zoom", 1.0),
        ("zoom", "0.2"),
        ("width_shift", 20),
        ("height_shift", True),
        ("shear", 1.5),
        ("fill_value", 256),
        ("crop_scale", (0.5, 1.5)),
        ("crop_scale", (0.9, 0.1)),
        ("crop_scale", 0.5),
        ("crop_ratio", (0.0, 1.0)),
        ("brightness", -0.5),
        ("contrast", float("inf")),
    ],
)
def test_what_is_not_allowed_is_named(field, value):
    with pytest.raises(UserError, match=rf"augment\.{field} is "):
        AugmentConfig(**{"preset": "keras_layers", field: value})

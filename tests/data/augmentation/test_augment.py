"""`augment_batch` as a whole, banks of variants, and colours against Pillow, an independent source of the formulas."""

import functools
import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance

from vision_transfer.config.schema import AugmentConfig
from vision_transfer.data.augmentation.affine import affine_matrices
from vision_transfer.data.augmentation.augment import (
    BankRows,
    augment_batch,
    augment_epoch,
    bank_variant,
    changes_colours,
    grey,
    jitter_colours,
)
from vision_transfer.data.augmentation.sampling import ColourParameters, draw_parameters
from vision_transfer.data.augmentation.warp import fill_mode, warp

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
    if changes_colours(config):
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


def test_flips_alone_give_the_image_or_its_mirror_image():
    config = AugmentConfig("keras_layers", flip="horizontal")
    flipped = np.asarray(draw(config, KEY, 1, IDS, 21, 26)[0].flip_horizontal)
    assert flipped.any() and not flipped.all()
    expected = np.where(flipped[:, None, None, None], IMAGES[:, :, ::-1], IMAGES)
    np.testing.assert_array_equal(augment(IMAGES, IDS, KEY, 1, config), expected)


def test_bank_repeats_its_variants():
    config = CONFIGS["keras_layers"]
    bank = 3
    epochs = [np.asarray(augment(IMAGES, IDS, KEY, bank_variant(epoch, bank), config)) for epoch in range(7)]
    for epoch, images in enumerate(epochs):
        np.testing.assert_array_equal(images, epochs[epoch % bank])
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
    assert fill_mode(AugmentConfig("keras_layers")) == "reflect"
    assert fill_mode(AugmentConfig("image_data_generator")) == "nearest"
    assert fill_mode(AugmentConfig("keras_layers", fill="wrap")) == "wrap"


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (6, 12, 12, 3), np.uint8), np.arange(10, 16, dtype=np.uint32)


@pytest.mark.parametrize("variant", range(2))
def test_a_variant_is_what_augmentation_makes_of_the_banks_own_key(images, variant):
    pixels, ids = images
    rows = BankRows(pixels, ids, replace(CONFIGS["keras_layers"], bank=2, bank_seed=3), variant)
    expected = augment_batch(pixels, ids, jax.random.key(3), variant, CONFIGS["keras_layers"])
    np.testing.assert_allclose(rows[np.arange(6)], expected, atol=1e-3)


def test_a_variant_does_not_depend_on_the_rows_it_is_taken_with(images):
    pixels, ids = images
    rows = BankRows(pixels, ids, replace(CONFIGS["keras_layers"], bank=2), 1)
    np.testing.assert_allclose(rows[np.array([4, 1])], rows[np.arange(6)][[4, 1]], atol=1e-3)


@pytest.mark.parametrize(("bank", "stage_keys_matter"), [(0, True), (2, False)])
def test_only_fresh_variants_depend_on_the_stages_key(images, bank, stage_keys_matter):
    pixels, ids = images
    augmentation = replace(CONFIGS["keras_layers"], bank=bank)
    first, second = (augment_epoch(pixels, ids, jax.random.key(seed), 0, augmentation) for seed in (1, 2))
    assert np.allclose(first, second) != stage_keys_matter


@pytest.mark.parametrize(("bank", "repeats"), [(0, False), (2, True)])
def test_epoch_e_uses_variant_e_mod_k(images, bank, repeats):
    pixels, ids = images
    augmentation = replace(CONFIGS["keras_layers"], bank=bank)
    first, later = (augment_epoch(pixels, ids, jax.random.key(0), epoch, augmentation) for epoch in (0, 2))
    assert np.allclose(first, later) == repeats


NOISE = np.random.default_rng(0).integers(0, 256, (24, 31, 3), dtype=np.uint8)
ENHANCERS = {
    "brightness": ImageEnhance.Brightness,
    "contrast": ImageEnhance.Contrast,
    "saturation": ImageEnhance.Color,
}


def jitter(image, config, **factors):
    colours = ColourParameters(
        *(jnp.asarray([factors.get(name, 1.0)], jnp.float32) for name in ColourParameters._fields)
    )
    return np.asarray(jitter_colours(jnp.asarray(image, jnp.float32)[None], colours, config)[0])


@pytest.mark.parametrize("factor", [0.0, 0.4, 1.0, 1.7])
@pytest.mark.parametrize("name", list(ENHANCERS))
def test_each_colour_operation_agrees_with_pillow(name, factor):
    config = AugmentConfig("keras_layers", **{name: 1.0})
    expected = np.asarray(ENHANCERS[name](Image.fromarray(NOISE)).enhance(factor), np.float32)
    # Pillow rounds grey to whole levels before it blends, and truncates the result.
    np.testing.assert_allclose(jitter(NOISE, config, **{name: factor}), expected, rtol=0, atol=1.5)


def test_colour_operations_that_are_off_are_left_out():
    config = AugmentConfig("keras_layers", brightness=0.5)
    result = jitter(NOISE, config, brightness=1.0, contrast=0.0, saturation=0.0)
    np.testing.assert_array_equal(result, NOISE)


def test_the_order_is_brightness_contrast_saturation():
    config = AugmentConfig("keras_layers", brightness=1.0, contrast=1.0, saturation=1.0)
    factors = {"brightness": 1.4, "contrast": 0.6, "saturation": 1.5}
    expected = NOISE
    for name, factor in factors.items():
        expected = jitter(expected, AugmentConfig("keras_layers", **{name: 1.0}), **{name: factor})
    np.testing.assert_allclose(jitter(NOISE, config, **factors), expected, rtol=0, atol=1e-3)


def test_grey_images_have_no_saturation():
    config = AugmentConfig("keras_layers", saturation=1.0)
    one_channel = NOISE[..., :1]
    np.testing.assert_allclose(jitter(one_channel, config, saturation=0.0), one_channel, atol=1e-4)
    np.testing.assert_allclose(grey(jnp.full((1, 2, 2, 3), 200.0)), np.full((1, 2, 2, 1), 200.0), atol=1e-3)

"""Both presets against Keras's own numbers (`tests/reference/README.md` says how they were made)."""

import ast
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vision_transfer.config.schema import AugmentConfig
from vision_transfer.data.augmentation.affine import affine_matrices
from vision_transfer.data.augmentation.sampling import AffineParameters
from vision_transfer.data.augmentation.warp import warp

REFERENCE = Path(__file__).parents[2] / "reference"
PHOTO = np.load(REFERENCE / "augmentation.npz")
LAYERS = np.load(REFERENCE / "augmentation_layers.npz")
GRID = 8
# On a scale of 0-255. Positions are good to 4e-6 pixels, Keras's layers' (float32 too) to 1e-5, where neighbouring
# pixels differ by up to 150: seen are 7e-4 against ImageDataGenerator (float64 inside), 9e-4 against the layers.
TOLERANCE = 1e-3
FILLS = ("nearest", "reflect", "constant", "wrap")
# The value outside in the references with fill constant.
FILL_VALUE = 17.0


def parameters(**values):
    neutral = {
        "flip_horizontal": False,
        "flip_vertical": False,
        "angle": 0.0,
        "shift_rows": 0.0,
        "shift_columns": 0.0,
        "shear": 0.0,
        "zoom_rows": 1.0,
        "zoom_columns": 1.0,
    }
    return AffineParameters(**{name: jnp.asarray([value]) for name, value in (neutral | values).items()})


def transform(image, config, **values):
    height, width = image.shape[:2]

    def run(images, drawn):
        return warp(images, affine_matrices(drawn, config.preset, height, width), config)

    return np.asarray(jax.jit(run)(jnp.asarray(image)[None], parameters(**values))[0])


def generator_parameters(case):
    """Keras's names; `tx` moves columns and `ty` rows since `apply_affine_transform` exchanges the axes."""
    return {
        "angle": np.deg2rad(case.get("theta", 0.0)),
        "shift_rows": case.get("ty", 0.0),
        "shift_columns": case.get("tx", 0.0),
        "shear": np.deg2rad(case.get("shear", 0.0)),
        "zoom_rows": case.get("zy", 1.0),
        "zoom_columns": case.get("zx", 1.0),
        "flip_horizontal": case.get("flip_horizontal", False),
    }


@pytest.mark.parametrize("number", range(7))
def test_image_data_generator(number):
    case = ast.literal_eval(str(PHOTO[f"idg_{number}_params"]))
    config = AugmentConfig(preset="image_data_generator")
    result = transform(PHOTO["image"], config, **generator_parameters(case))
    np.testing.assert_allclose(result[::GRID, ::GRID], PHOTO[f"idg_{number}"], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("fill", ["constant", "reflect", "wrap"])
def test_image_data_generator_fills(fill):
    config = AugmentConfig(preset="image_data_generator", fill=fill)
    result = transform(PHOTO["image"], config, **generator_parameters({"theta": 30.0, "tx": 25.0}))
    np.testing.assert_allclose(result[::GRID, ::GRID], PHOTO[f"idg_fill_{fill}"], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("rotation_+0.1", {"angle": 0.1 * 2 * np.pi}),
        ("rotation_-0.05", {"angle": -0.05 * 2 * np.pi}),
        ("zoom_+0.2", {"zoom_rows": 1.2, "zoom_columns": 1.2}),
        ("zoom_-0.2", {"zoom_rows": 0.8, "zoom_columns": 0.8}),
    ],
)
def test_keras_layers(name, values):
    result = transform(PHOTO["image"], AugmentConfig(preset="keras_layers"), **values)
    np.testing.assert_allclose(result[::GRID, ::GRID], PHOTO[f"keras_{name}"], rtol=0, atol=TOLERANCE)


def with_fill_value(image, config, **values):
    """The warped image with `FILL_VALUE` outside: a warp is linear, and fills with 0."""
    return transform(image - np.float32(FILL_VALUE), config, **values) + FILL_VALUE


@pytest.mark.parametrize("fill", FILLS)
def test_keras_rotation_with_every_fill(fill):
    config = AugmentConfig(preset="keras_layers", fill=fill)
    result = with_fill_value(LAYERS["image"], config, angle=0.07 * 2 * np.pi)
    np.testing.assert_allclose(result, LAYERS[f"rotation_{fill}_bilinear"], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("fill", FILLS)
def test_keras_translation(fill):
    image = LAYERS["image"]
    config = AugmentConfig(preset="keras_layers", fill=fill)
    shifts = {"shift_rows": -0.27 * image.shape[0], "shift_columns": 0.16 * image.shape[1]}
    result = with_fill_value(image, config, **shifts)
    np.testing.assert_allclose(result, LAYERS[f"translation_{fill}"], rtol=0, atol=TOLERANCE)


def test_keras_zoom_of_rows_and_columns():
    result = transform(LAYERS["image"], AugmentConfig(preset="keras_layers"), zoom_rows=1.3, zoom_columns=0.75)
    np.testing.assert_allclose(result, LAYERS["zoom"], rtol=0, atol=TOLERANCE)


def test_keras_shear():
    result = transform(LAYERS["image"], AugmentConfig(preset="keras_layers"), shear=0.3)
    np.testing.assert_allclose(result, LAYERS["shear"], rtol=0, atol=TOLERANCE)

"""Random parameters of an augmentation: a pure function of (seed, epoch or variant, example id).

Every example has its own key, so its draws depend neither on its batch nor on its place in it. Every operation has
fixed places in one row of uniform numbers, used or not, so that switching one on does not change the draws of others.

The distributions are those of Keras 3.15: `keras/src/layers/preprocessing/image_preprocessing/random_{flip,rotation,
translation,shear,zoom}.py` and `ImageDataGenerator.get_random_transform` in
`keras/src/legacy/preprocessing/image.py`; of torchvision for the crop (`RandomResizedCrop.get_params`, without its
rounding to whole pixels) and for colours (`ColorJitter`, in a fixed order).
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Int, Key, UInt32

from vision_transfer.config.schema import AugmentConfig

# As in torchvision: the tries for a crop that fits into the image, before the largest central one is taken; and the
# smallest and largest width/height of a crop, in pixels.
CROP_TRIES, CROP_RATIO = 10, (3 / 4, 4 / 3)
# Uniform numbers per example: one for each parameter of geometry and colours; an area and a ratio for each try; the
# crop's place.
AFFINE_DRAWS, COLOUR_DRAWS, CROP_DRAWS = 8, 3, 2 * CROP_TRIES + 2


class CropParameters(NamedTuple):
    """The rectangle that becomes the whole image: its size and the distances of its upper and left edge, in pixels."""

    height: Float32[Array, "batch"]
    width: Float32[Array, "batch"]
    top: Float32[Array, "batch"]
    left: Float32[Array, "batch"]


class AffineParameters(NamedTuple):
    """Geometry of each example of a batch; `affine_matrices` gives the order of the operations.

    Attributes:
        flip_horizontal: swaps left and right.
        flip_vertical: swaps top and bottom.
        angle: radians; positive turns the image counterclockwise.
        shift_rows: pixels by which the place read from moves down (the image moves up).
        shift_columns: pixels by which the place read from moves right (the image moves left).
        shear: radians (`image_data_generator`) or columns per row (`keras_layers`).
        zoom_rows: rows of the input per row of the output; above 1 zooms out.
        zoom_columns: likewise for columns.
        crop: the random resized crop, or None.
    """

    flip_horizontal: Bool[Array, "batch"]
    flip_vertical: Bool[Array, "batch"]
    angle: Float32[Array, "batch"]
    shift_rows: Float32[Array, "batch"]
    shift_columns: Float32[Array, "batch"]
    shear: Float32[Array, "batch"]
    zoom_rows: Float32[Array, "batch"]
    zoom_columns: Float32[Array, "batch"]
    crop: CropParameters | None = None


class ColourParameters(NamedTuple):
    """Factors of each example of a batch; 1 changes nothing."""

    brightness: Float32[Array, "batch"]
    contrast: Float32[Array, "batch"]
    saturation: Float32[Array, "batch"]


def draw_parameters(
    config: AugmentConfig,
    key: Key[Array, ""],
    epoch: int | Int[Array, ""],
    example_ids: UInt32[Array, "batch"],
    height: int,
    width: int,
) -> tuple[AffineParameters, ColourParameters]:
    """Draws geometry and colours for each example; an operation that is off gets its neutral value.

    See `augment_batch` for key, epoch and ids. Shifts and crops are fractions of the images' height and width.
    """
    units = _unit_numbers(key, epoch, example_ids)
    affine = _affine(config, units[:AFFINE_DRAWS], height, width)
    if config.crop_scale:
        affine = affine._replace(crop=_crop(config, units[-CROP_DRAWS:], height, width))
    return affine, _colours(config, units[AFFINE_DRAWS : AFFINE_DRAWS + COLOUR_DRAWS])


def _unit_numbers(
    key: Key[Array, ""], epoch: int | Int[Array, ""], example_ids: UInt32[Array, "batch"]
) -> Float32[Array, "draws batch"]:
    """Numbers uniform in [0, 1), one column per example."""
    epoch_key = jax.random.fold_in(key, epoch)
    draws = (AFFINE_DRAWS + COLOUR_DRAWS + CROP_DRAWS,)
    return jax.vmap(lambda id_: jax.random.uniform(jax.random.fold_in(epoch_key, id_), draws), out_axes=1)(example_ids)


def _between(low: float, high: float, unit: Float32[Array, "..."]) -> Float32[Array, "..."]:
    return low + (high - low) * unit


def _affine(config: AugmentConfig, units: Float32[Array, "draws batch"], height: int, width: int) -> AffineParameters:
    horizontal, vertical, angle, rows, columns, shear, zoom_rows, zoom_columns = units
    layers = config.preset == "keras_layers"
    largest_angle = jnp.deg2rad(config.rotation * 360 if layers else config.rotation)
    largest_shear = config.shear if layers else jnp.deg2rad(config.shear)
    row_zoom = _between(1 - config.zoom, 1 + config.zoom, zoom_rows)
    return AffineParameters(
        flip_horizontal=(horizontal < 0.5) & ("horizontal" in config.flip),
        flip_vertical=(vertical < 0.5) & ("vertical" in config.flip),
        angle=_between(-1, 1, angle) * largest_angle,
        shift_rows=_between(-1, 1, rows) * (config.height_shift * height),
        shift_columns=_between(-1, 1, columns) * (config.width_shift * width),
        shear=_between(-1, 1, shear) * largest_shear,
        zoom_rows=row_zoom,
        zoom_columns=row_zoom if layers else _between(1 - config.zoom, 1 + config.zoom, zoom_columns),
    )


def _crop(config: AugmentConfig, units: Float32[Array, "draws batch"], height: int, width: int) -> CropParameters:
    """The first of ten tries that fits, else the largest central crop with an allowed ratio."""
    vertical, horizontal = units[2 * CROP_TRIES :]
    smallest, largest = config.crop_scale
    areas = _between(smallest, largest, units[:CROP_TRIES]) * (height * width)
    smallest, largest = (math.log(ratio) for ratio in CROP_RATIO)
    ratios = jnp.exp(_between(smallest, largest, units[CROP_TRIES : 2 * CROP_TRIES]))
    heights, widths = jnp.sqrt(areas / ratios), jnp.sqrt(areas * ratios)
    fits = (heights <= height) & (widths <= width)
    first = jnp.argmax(fits, axis=0)[None]
    any_fits = jnp.any(fits, axis=0)
    central_ratio = min(max(width / height, CROP_RATIO[0]), CROP_RATIO[1])
    crop_height = jnp.where(any_fits, jnp.take_along_axis(heights, first, 0)[0], min(height, width / central_ratio))
    crop_width = jnp.where(any_fits, jnp.take_along_axis(widths, first, 0)[0], min(width, height * central_ratio))
    return CropParameters(
        height=crop_height,
        width=crop_width,
        top=jnp.where(any_fits, vertical, 0.5) * (height - crop_height),
        left=jnp.where(any_fits, horizontal, 0.5) * (width - crop_width),
    )


def _colours(config: AugmentConfig, units: Float32[Array, "draws batch"]) -> ColourParameters:
    widest = (config.brightness, config.contrast, config.saturation)
    return ColourParameters(
        *(_between(max(0.0, 1 - most), 1 + most, unit) for most, unit in zip(widest, units, strict=True))
    )

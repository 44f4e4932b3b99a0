"""One batched affine warp: every pixel of the output reads two rows and two columns of the input.

Two things keep it exact in float32. A position is a whole number of pixels and a fraction apart, split before the
terms that depend on the row and on the column are added: the error is then about 4e-6 pixels at 150 pixels, half
that of the plain sum. And the taps are the even and the odd index next to a position, not the lower and the upper
one: where a position passes an integer only the tap of weight zero changes, and the weights are continuous. XLA may
compute a position twice, for an index and for a weight, with roundings that differ in the last bit; lower and upper
taps would then now and then be a whole pixel off (seen on CPU), even and odd taps cannot be.
"""

import functools
from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Int32, Real

from vision_transfer.data.augmentation.config import AugmentConfig

# A quarter turn must not lose the image's edge to the fill: a coordinate this far outside, as a fraction of the
# image's size (four units in the last place), is rounding.
EDGE_TOLERANCE = 4 * 2.0**-24


class Positions(NamedTuple):
    """Rows, or columns, of the input that each output pixel is read from, counted from the first.

    Attributes:
        whole: `(batch, height, width)` int32, the pixel at or below the position; may lie outside of the image.
        fraction: `(batch, height, width)` float32, what is left, in [0, 1).
    """

    whole: Int32[Array, "batch height width"]
    fraction: Float32[Array, "batch height width"]


class Tap(NamedTuple):
    """A row, or a column, of the input that output pixels take a share of.

    Attributes:
        pixel: `(batch, height, width)` int32, its number.
        weight: `(batch, height, width)` float32, 0 to 1.
    """

    pixel: Int32[Array, "batch height width"]
    weight: Float32[Array, "batch height width"]


def warp(
    images: Real[Array, "batch height width channels"],
    matrices: Float32[Array, "batch 2 3"],
    config: AugmentConfig,
) -> Float32[Array, "batch height width channels"]:
    """Resamples each image where its matrix says, with the interpolation and the fill of `config`.

    Args:
        images: `(batch, height, width, channels)` uint8 or float32, 0-255.
        matrices: `(batch, 2, 3)` float32; they take (row, column, 1) of an output pixel to (row, column) in the
            input, both counted in pixels from the image's centre ((height - 1) / 2, (width - 1) / 2).
        config: preset, interpolation, fill and fill value.

    Returns:
        `(batch, height, width, channels)` float32.
    """
    height, width = images.shape[1:3]
    row_positions, column_positions = sampling_positions(matrices, height, width)
    row_taps, column_taps = _taps(row_positions, height, config), _taps(column_positions, width, config)
    if config.fill_mode == "constant":
        border = ((0, 0), (1, 1), (1, 1), (0, 0))
        images = jnp.pad(images.astype(jnp.float32), border, constant_values=config.fill_value)

    def along_columns(row: Tap) -> Float32[Array, "batch height width channels"]:
        return _sum(column.weight[..., None] * _read(images, row.pixel, column.pixel) for column in column_taps)

    return _sum(row.weight[..., None] * along_columns(row) for row in row_taps)


def sampling_positions(matrices: Float32[Array, "batch 2 3"], height: int, width: int) -> tuple[Positions, Positions]:
    """The rows and the columns of the input that each output pixel is read from."""
    row_centre, column_centre = (height - 1) / 2, (width - 1) / 2
    rows = jnp.arange(height, dtype=jnp.float32) - row_centre
    columns = jnp.arange(width, dtype=jnp.float32) - column_centre

    def along(axis: int, size: int) -> Positions:
        centre_whole, centre_fraction = (size - 1) // 2, (size - 1) % 2 / 2
        of_rows = matrices[:, axis, 0, None] * rows + matrices[:, axis, 2, None]
        of_columns = matrices[:, axis, 1, None] * columns
        row_floor, column_floor = jnp.floor(of_rows), jnp.floor(of_columns)
        row_rest, column_rest = of_rows - row_floor + centre_fraction, of_columns - column_floor
        whole = row_floor.astype(jnp.int32)[:, :, None] + column_floor.astype(jnp.int32)[:, None, :] + centre_whole
        rest = row_rest[:, :, None] + column_rest[:, None, :]
        carry = jnp.floor(rest)
        return Positions(whole + carry.astype(jnp.int32), rest - carry)

    return along(0, height), along(1, width)


def _sum(terms: Iterable[Float32[Array, "..."]]) -> Float32[Array, "..."]:
    return functools.reduce(jnp.add, terms)


def _read(
    images: Real[Array, "batch height width channels"],
    rows: Int32[Array, "batch height width"],
    columns: Int32[Array, "batch height width"],
) -> Float32[Array, "batch height width channels"]:

    def of_one_image(image, image_rows, image_columns):
        return image.at[image_rows, image_columns].get(mode="promise_in_bounds")

    return jax.vmap(of_one_image)(images, rows, columns).astype(jnp.float32)


def _taps(positions: Positions, size: int, config: AugmentConfig) -> tuple[Tap, ...]:
    """The pixels along one axis that each position is a weighted sum of: one, or the even and the odd neighbour."""
    if config.fill_mode == "wrap":
        positions = _wrapped(positions, size, config)
    elif config.fill_mode == "constant" and config.preset == "image_data_generator":
        # SciPy fills wherever a position is outside; TensorFlow blends the edge with the fill over one more pixel.
        far_outside = jnp.where(_inside(positions, size), positions.whole, -2)
        positions = positions._replace(whole=far_outside)
    if config.interpolation == "nearest":
        taps = (Tap(positions.whole + (positions.fraction >= 0.5), jnp.ones_like(positions.fraction)),)
    else:
        parity = positions.whole & 1
        weight = jnp.where(parity == 1, 1 - positions.fraction, positions.fraction)
        taps = (Tap(positions.whole + parity, 1 - weight), Tap(positions.whole + 1 - parity, weight))
    return tuple(tap._replace(pixel=_filled(tap.pixel, size, config)) for tap in taps)


def _filled(
    pixels: Int32[Array, "batch height width"], size: int, config: AugmentConfig
) -> Int32[Array, "batch height width"]:
    """Numbers of pixels, those outside of the image replaced by the pixel that stands in for them."""
    if config.fill_mode == "reflect":
        folded = jnp.mod(pixels, 2 * size)
        return jnp.where(folded < size, folded, 2 * size - 1 - folded)
    if config.fill_mode == "constant":
        # The image has a border of fill, one pixel wide.
        return jnp.clip(pixels, -1, size) + 1
    return jnp.clip(pixels, 0, size - 1)


def _inside(positions: Positions, size: int) -> Bool[Array, "batch height width"]:
    """Whether positions lie on the image, from the first pixel's centre to the last's."""
    tolerance = size * EDGE_TOLERANCE
    coordinates = positions.whole + positions.fraction
    return (coordinates >= -tolerance) & (coordinates <= size - 1 + tolerance)


def _wrapped(positions: Positions, size: int, config: AugmentConfig) -> Positions:
    """Positions outside of the image moved into it by whole periods, SciPy's or TensorFlow's."""
    inside = _inside(positions, size)
    if config.preset == "image_data_generator":
        whole, fraction = jnp.mod(positions.whole, max(size - 1, 1)), positions.fraction
    else:
        whole = jnp.mod(positions.whole, size)
        # TensorFlow does not blend the last pixel with the first: between the two it takes the one that it left.
        beyond_last = whole == size - 1
        whole = jnp.where(beyond_last & (positions.whole >= 0), 0, whole)
        fraction = jnp.where(beyond_last, 0.0, positions.fraction)
    return Positions(jnp.where(inside, positions.whole, whole), jnp.where(inside, positions.fraction, fraction))

"""Images that maximise the output of a filter, found by gradient ascent on the pixels.

Two ways: the textbook's plain steps (Chollet 2017, "Deep Learning with Python", section 5.4.2), and one whose images
look more like photos (Olah, Mordvintsev and Schubert 2017, "Feature Visualization", doi 10.23915/distill.00007).
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Float, Float32, Int, Key

from vision_transfer.errors import UserError
from vision_transfer.models.layers import Block, Row
from vision_transfer.models.network import Network, Variables, apply_watching
from vision_transfer.models.preprocessing import MAX_PIXEL
from vision_transfer.tasks.explain.activations import require_map

Way = Literal["textbook", "smooth"]
WAYS: tuple[Way, ...] = ("smooth", "textbook")
# The textbook starts from grey with a little noise and takes steps of one grey level along the gradient divided by its
# root mean square.
TEXTBOOK_START, TEXTBOOK_NOISE, TEXTBOOK_STEPS, TEXTBOOK_STEP = 128.0, 20.0, 40, 1.0
TEXTBOOK_EPSILON = 1e-5
# `smooth`, chosen by eye on VGG16's blocks 1 to 5: Adam on decorrelated colours, with a sigmoid that keeps pixels in
# range; each step sees the image shifted at random, and a blur that narrows over the steps removes fine grain.
SMOOTH_STEPS, SMOOTH_RATE, SMOOTH_START = 96, 0.06, 0.1
JITTER = 4
BLUR_FIRST, BLUR_LAST, BLUR_REACH = 1.2, 0.4, 3
SIZE = 128
SHOWN_DEVIATION = 0.2
RGB = 3
# Brightness, red against blue, green against both (Ohta, Kanade and Sakai 1980, "Color information for region
# segmentation": nearly the principal components of photos' colours), each of length 1. They vary independently in
# photos, as red, green and blue do not.
OPPONENT = np.array([[1, 1, 1], [1, 0, -1], [-1, 2, -1]]) / np.sqrt([[3], [2], [6]])
# Their standard deviations within a photo, the first set to 1; means over scikit-image's chelsea, astronaut, coffee
# and rocket.
COLOUR_DEVIATIONS = np.array([1.0, 0.35, 0.1])


def filter_images(
    network: Network,
    variables: Variables,
    layer: str,
    filters: Sequence[int],
    key: Key[Array, ""],
    *,
    way: Way = "smooth",
    size: int = SIZE,
) -> tuple[
    Float32[np.ndarray, "filters size size channels"], Float32[np.ndarray, "filters"], Float32[np.ndarray, "filters"]
]:
    """Images that maximise filters of a layer, each independent of the others; memory grows with their number.

    The key is for the noise that each image starts from (`textbook`: 128 + 20 · uniform noise) and for the shifts of
    `smooth`.

    Returns:
        The pixels, which may leave 0–255 with `textbook`, and each filter's mean output for the first and last image.

    Raises:
        UserError: there is no such layer or filter, or the image is too small for the layer.
    """
    _, _, channels = require_map(network, layer)
    wrong = [number for number in filters if not 0 <= number < channels]
    if wrong:
        raise UserError(f"--filters: {layer} has no filter {wrong[0]}; it has {channels}, numbered from 0")
    sized = replace(network, head=(), input_shape=(size, size, network.input_shape[-1]))
    numbers = jnp.asarray(filters, jnp.int32)
    keys = jax.vmap(partial(jax.random.fold_in, key))(numbers)
    images, before, after = (
        np.asarray(array, np.float32) for array in _ascend_all(sized, layer, way, variables, numbers, keys)
    )
    return images, before, after


@partial(jax.jit, static_argnames=("network", "layer", "way"))
def _ascend_all(
    network: Network,
    layer: str,
    way: Way,
    variables: Variables,
    numbers: Int[Array, "filters"],
    keys: Key[Array, "filters"],
) -> tuple[Array, Array, Array]:
    def mean_output(tables: Network, image: Array, number: Array) -> Array:
        outputs = apply_watching(tables, variables, image[None], (layer,))[1][layer]
        return jnp.mean(outputs[..., number].astype(jnp.float32))

    ascend = _textbook if way == "textbook" else _smooth
    sought = network if way == "textbook" else _without_relu(network, layer)

    def one(number: Array, key: Array) -> tuple[Array, Array, Array]:
        start, image = ascend(lambda image: mean_output(sought, image, number), network.input_shape, key)
        return image, mean_output(network, start, number), mean_output(network, image, number)

    return jax.vmap(one)(numbers, keys)


def _without_relu(network: Network, layer: str) -> Network:
    """The network with the layer's activation removed, so that a filter whose output is 0 at first has a gradient."""
    return replace(network, backbone=tuple(_linear_at(row, layer) for row in network.backbone))


def _linear_at(row: Row, layer: str) -> Row:
    if isinstance(row, Block):
        return replace(row, branches=tuple(tuple(_linear_at(inner, layer) for inner in rows) for rows in row.branches))
    return replace(row, activation="linear") if row.name == layer and hasattr(row, "activation") else row


def _textbook(
    objective: Callable[[Array], Array], shape: tuple[int, ...], key: Key[Array, ""]
) -> tuple[Float[Array, "size size channels"], Float[Array, "size size channels"]]:
    """The first and the last image.

    The textbook skips the network's preprocessing; here the image has pixels 0–255, like all others.
    """
    start = TEXTBOOK_START + TEXTBOOK_NOISE * jax.random.uniform(key, shape)

    def step(image: Array, _: None) -> tuple[Array, None]:
        gradient = cast(Array, jax.grad(objective)(image))
        length = jnp.sqrt(jnp.mean(jnp.square(gradient))) + TEXTBOOK_EPSILON
        return image + TEXTBOOK_STEP * gradient / length, None

    image, _ = lax.scan(step, start, length=TEXTBOOK_STEPS)
    return start, image


def _smooth(
    objective: Callable[[Array], Array], shape: tuple[int, ...], key: Key[Array, ""]
) -> tuple[Float[Array, "size size channels"], Float[Array, "size size channels"]]:
    """The first and the last image."""
    start_key, shift_key = jax.random.split(key)
    start = SMOOTH_START * jax.random.normal(start_key, shape)
    optimizer = optax.adam(SMOOTH_RATE)

    def step(carried: tuple[Array, Any], number: Array) -> tuple[tuple[Array, Any], None]:
        values, state = carried
        shift = jax.random.randint(jax.random.fold_in(shift_key, number), (2,), -JITTER, JITTER + 1)

        def loss(values: Array) -> Array:
            return -objective(jnp.roll(_pixels(values), shift, (0, 1)))

        updates, state = optimizer.update(cast(Array, jax.grad(loss)(values)), state)
        done = number / (SMOOTH_STEPS - 1)
        blurred = _blurred(values + cast(Array, updates), BLUR_FIRST + done * (BLUR_LAST - BLUR_FIRST))
        return (blurred, state), None

    (values, _), _ = lax.scan(step, (start, optimizer.init(start)), jnp.arange(SMOOTH_STEPS))
    return _pixels(start), _pixels(values)


def _pixels(values: Float[Array, "size size channels"]) -> Float[Array, "size size channels"]:
    """Pixels 0–255 from unbounded values of equal spread, which for RGB are in decorrelated colours."""
    if values.shape[-1] == RGB:
        values = values @ jnp.asarray(COLOUR_DEVIATIONS[:, None] * OPPONENT * np.sqrt(RGB), values.dtype)
    return MAX_PIXEL * jax.nn.sigmoid(values)


def _blurred(
    values: Float[Array, "size size channels"], deviation: Float[Array, ""]
) -> Float[Array, "size size channels"]:
    """A Gaussian blur that wraps around at the edges, as the shifts do."""
    offsets = range(-BLUR_REACH, BLUR_REACH + 1)
    weights = jnp.exp(-jnp.square(jnp.arange(-BLUR_REACH, BLUR_REACH + 1)) / (2 * jnp.square(deviation)))
    weights = weights / jnp.sum(weights)
    for axis in (0, 1):
        shifted = [weight * jnp.roll(values, offset, axis) for weight, offset in zip(weights, offsets, strict=True)]
        values = cast(Array, sum(shifted))
    return values


def shown(image: Float[np.ndarray, "size size channels"]) -> Float32[np.ndarray, "size size channels"]:
    """Scales an image to mean 0.5 and standard deviation 0.2, clipped to 0–1, so that all of a grid can be seen.

    The textbook uses a deviation of 0.1 in its first edition and 0.25 in its second.
    """
    centred = image - image.mean()
    return np.clip(0.5 + SHOWN_DEVIATION * centred / max(float(image.std()), TEXTBOOK_EPSILON), 0, 1)

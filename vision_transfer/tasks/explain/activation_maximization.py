"""What a filter looks for: an image that it answers to most, found by gradient ascent on the pixels.

Two ways: the textbook's plain steps (Chollet 2017, "Deep Learning with Python", section 5.4.2), and one that keeps to
what photos look like (Olah, Mordvintsev and Schubert 2017, "Feature Visualization", doi 10.23915/distill.00007).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Float, Float32, Int, Key

from vision_transfer.errors import UserError
from vision_transfer.models.layers import Conv
from vision_transfer.models.network import Network, Variables, apply
from vision_transfer.models.preprocessing import MAX_PIXEL
from vision_transfer.tasks.explain.colours import from_decorrelated
from vision_transfer.tasks.explain.maps import require_map

Way = Literal["textbook", "smooth"]
WAYS: tuple[Way, ...] = ("smooth", "textbook")
# The textbook's: grey with a little noise, steps of one grey level along the gradient divided by its root mean square.
TEXTBOOK_START, TEXTBOOK_NOISE, TEXTBOOK_STEPS, TEXTBOOK_STEP = 128.0, 20.0, 40, 1.0
TEXTBOOK_EPSILON = 1e-5
# Ours, chosen by eye on VGG16's blocks 1 to 5: Adam on decorrelated colours that pass a sigmoid, so that pixels stay in
# range; each step sees the image shifted at random, and the fine grain is blurred away, less and less.
SMOOTH_STEPS, SMOOTH_RATE, SMOOTH_START = 96, 0.06, 0.1
JITTER = 4
BLUR_FIRST, BLUR_LAST, BLUR_REACH = 1.2, 0.4, 3
# Filters in one vmapped step on a CPU: VGG16's activations of one image of 128 × 128 and their gradients take 50 MB.
CHUNK = 8
SIZE = 128
SHOWN_DEVIATION = 0.2


@dataclass(frozen=True)
class FilterImages:
    """What some filters of one layer look for.

    Attributes:
        images: `(filters, size, size, channels) float32`, pixels; the textbook's may leave 0–255.
        before: `(filters,) float32`, mean output of each filter for the image that it started from.
        after: `(filters,) float32`, the same for the image that was found.
    """

    images: Float32[np.ndarray, "filters size size channels"]
    before: Float32[np.ndarray, "filters"]
    after: Float32[np.ndarray, "filters"]


def filter_images(
    network: Network,
    variables: Variables,
    layer: str,
    filters: Sequence[int],
    key: Key[Array, ""],
    *,
    way: Way = "smooth",
    size: int = SIZE,
    chunk: int = CHUNK,
) -> FilterImages:
    """Gradient ascent for several filters of a layer at once, in one program; filters do not influence one another.

    Args:
        network: the tables; only the layers up to `layer` run.
        variables: `params` and, if there are batch norms, `batch_stats`.
        layer: a layer whose output is a map.
        filters: numbers of its channels.
        key: of the noise that each image starts from and, for `smooth`, of its shifts.
        way: `textbook` (40 plain steps from 128 + 20 · uniform noise) or `smooth` (decorrelated colour, jitter, blur).
        size: height and width of the images in pixels.
        chunk: filters that are computed at once; memory grows with it.

    Raises:
        UserError: no such layer or filter, or the layer does not fit into an image of this size.
    """
    _, _, channels = require_map(network, layer)
    wrong = [number for number in filters if not 0 <= number < channels]
    if wrong:
        raise UserError(f"--filters: {layer} has no filter {wrong[0]}; it has {channels}, numbered from 0")
    sized = replace(network, head=(), input_shape=(size, size, network.input_shape[-1]))
    numbers = jnp.asarray(filters, jnp.int32)
    keys = jax.vmap(partial(jax.random.fold_in, key))(numbers)
    found = _ascend_all(sized, layer, way, min(chunk, len(filters)), variables, numbers, keys)
    return FilterImages(*(np.asarray(array, np.float32) for array in found))


@partial(jax.jit, static_argnames=("network", "layer", "way", "chunk"))
def _ascend_all(
    network: Network,
    layer: str,
    way: Way,
    chunk: int,
    variables: Variables,
    numbers: Int[Array, "filters"],
    keys: Key[Array, "filters"],
) -> tuple[Array, Array, Array]:
    def mean_output(tables: Network, image: Array, number: Array) -> Array:
        outputs = apply(tables, variables, image[None], stop=layer)
        return jnp.mean(outputs[..., number].astype(jnp.float32))

    ascend = _textbook if way == "textbook" else _smooth
    sought = network if way == "textbook" else _without_relu(network, layer)

    def one(number_and_key: tuple[Array, Array]) -> tuple[Array, Array, Array]:
        number, key = number_and_key
        start, image = ascend(lambda image: mean_output(sought, image, number), network.input_shape, key)
        return image, mean_output(network, start, number), mean_output(network, image, number)

    # vmapped over the filters of a chunk
    return cast(tuple[Array, Array, Array], lax.map(one, (numbers, keys), batch_size=chunk))


def _without_relu(network: Network, layer: str) -> Network:
    """The same network, but that the layer answers before its ReLU: a filter that is silent at first has a gradient."""
    rows = tuple(
        replace(row, activation="linear") if isinstance(row, Conv) and row.name == layer else row
        for row in network.backbone
    )
    return replace(network, backbone=rows)


def _textbook(
    objective: Callable[[Array], Array], shape: tuple[int, ...], key: Key[Array, ""]
) -> tuple[Float[Array, "size size channels"], Float[Array, "size size channels"]]:
    """The image at the start and at the end.

    The textbook feeds the network without its preprocessing; here the image is one of pixels 0–255, as all others.
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
    """The image at the start and at the end."""
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
    """Pixels of 0–255 from unbounded values, which for RGB are in decorrelated colours."""
    return MAX_PIXEL * jax.nn.sigmoid(from_decorrelated(values))


def _blurred(
    values: Float[Array, "size size channels"], deviation: Float[Array, ""]
) -> Float[Array, "size size channels"]:
    """A Gaussian blur that goes round at the edges, as the shifts do."""
    offsets = range(-BLUR_REACH, BLUR_REACH + 1)
    weights = jnp.exp(-jnp.square(jnp.arange(-BLUR_REACH, BLUR_REACH + 1)) / (2 * jnp.square(deviation)))
    weights = weights / jnp.sum(weights)
    for axis in (0, 1):
        shifted = [weight * jnp.roll(values, offset, axis) for weight, offset in zip(weights, offsets, strict=True)]
        values = cast(Array, sum(shifted))
    return values


def shown(image: Float[np.ndarray, "size size channels"]) -> Float32[np.ndarray, "size size channels"]:
    """An image with its mean at 0.5 and its standard deviation at 0.2, cut to 0–1: so that all of a grid can be seen.

    The textbook takes a deviation of 0.1 in its first edition and 0.25 in its second.
    """
    centred = image - image.mean()
    return np.clip(0.5 + SHOWN_DEVIATION * centred / max(float(image.std()), TEXTBOOK_EPSILON), 0, 1)

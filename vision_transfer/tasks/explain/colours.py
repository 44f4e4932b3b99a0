"""Colours whose three values vary independently in photos, as red, green and blue do not."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

RGB = 3
# Brightness, red against blue, green against both (Ohta, Kanade and Sakai 1980, "Color information for region
# segmentation": nearly the principal components of photos' colours), each of length 1.
OPPONENT = np.array([[1, 1, 1], [1, 0, -1], [-1, 2, -1]]) / np.sqrt([[3], [2], [6]])
# Their standard deviations within a photo, the first set to 1; means over scikit-image's chelsea, astronaut, coffee
# and rocket.
DEVIATIONS = np.array([1.0, 0.35, 0.1])


def from_decorrelated(values: Float[Array, "height width channels"]) -> Float[Array, "height width channels"]:
    """RGB, around 0, from values of equal spread; with any other number of channels, the values as they are."""
    if values.shape[-1] != RGB:
        return values
    return values @ jnp.asarray(DEVIATIONS[:, None] * OPPONENT * np.sqrt(RGB), values.dtype)

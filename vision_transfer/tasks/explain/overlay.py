"""A heat map laid over the image that it belongs to."""

import numpy as np
from jaxtyping import Float, UInt8

from vision_transfer.data.images.resize import resize_bilinear

# One of matplotlib's maps whose lightness grows evenly, so that it reads in grey and to the colour-blind.
HEAT_COLOURS = "inferno"
# Share of the colour where the heat is 1; at 0 the image is as it was.
STRENGTH = 0.75


def superimpose(
    image: UInt8[np.ndarray, "height width channels"], heat: Float[np.ndarray, "map_height map_width"]
) -> UInt8[np.ndarray, "height width 3"]:
    """The image at its own size with a heat map in colours over it: the hotter, the less of the image is seen.

    Args:
        image: RGB or grey (1 channel).
        heat: values 0–1 at any size; stretched over the whole image bilinearly.
    """
    from matplotlib import colormaps

    height, width = image.shape[:2]
    stretched = np.clip(resize_bilinear(np.asarray(heat, np.float32)[..., None], height, width), 0, 1)
    colours = colormaps[HEAT_COLOURS](stretched[..., 0])[..., :3] * 255
    share = STRENGTH * stretched
    mixed = image.astype(np.float32) * (1 - share) + colours * share
    return np.rint(mixed).astype(np.uint8)

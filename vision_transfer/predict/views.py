"""Views of an image that a prediction is averaged over (test-time augmentation): itself, mirrored, and shifted."""

from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8

from vision_transfer.errors import UserError, nearest_names

Images = UInt8[np.ndarray, "batch size size channels"]

View = Callable[[Images], Images]

# Of the side; the edge is repeated.
SHIFT = 1 / 16


def as_it_is(images: Images) -> Images:
    """The image itself."""
    return images


def mirrored(images: Images) -> Images:
    """Left and right exchanged."""
    return images[:, :, ::-1]


def moved_up_left(images: Images) -> Images:
    """Moved by a sixteenth of the side."""
    padded, side, by = _padded(images)
    return padded[:, 2 * by : 2 * by + side, 2 * by : 2 * by + side]


def moved_down_right(images: Images) -> Images:
    """Moved by a sixteenth of the side."""
    padded, side, _ = _padded(images)
    return padded[:, :side, :side]


VIEWS: dict[str, tuple[View, ...]] = {
    "flip": (mirrored,),
    "shifts": (moved_up_left, moved_down_right),
}


def views_of(names: str | None) -> tuple[View, ...]:
    """The image as it is, then the views with these names, several with commas; each keeps the shape.

    Raises:
        UserError: there are no such views.
    """
    views: list[View] = [as_it_is]
    for name in dict.fromkeys(name.strip() for name in (names or "").split(",") if name.strip()):
        if name not in VIEWS:
            raise UserError(f"--views: there are no views {name!r}; {nearest_names(name, tuple(VIEWS))}")
        views += VIEWS[name]
    return tuple(views)


def _padded(images: Images) -> tuple[Images, int, int]:
    """The images with their edges repeated; their side, and by how many pixels they grew on each side."""
    side = images.shape[1]
    by = round(side * SHIFT)
    return np.pad(images, ((0, 0), (by, by), (by, by), (0, 0)), mode="edge"), side, by

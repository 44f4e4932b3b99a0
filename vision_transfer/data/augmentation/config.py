"""The operations of an augmentation: one frozen, hashable dataclass, static under `jax.jit`."""

import dataclasses
from typing import Literal

Preset = Literal["none", "keras_layers", "image_data_generator"]
Flip = Literal["none", "horizontal", "vertical", "horizontal_and_vertical"]
Fill = Literal["nearest", "reflect", "constant", "wrap"]

PRESET_FILLS: dict[Preset, Fill] = {"none": "nearest", "keras_layers": "reflect", "image_data_generator": "nearest"}


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """How training images are varied. A zero, `none` or None turns an operation off; the configuration checks limits.

    Attributes:
        preset: whose conventions apply. `none` turns everything off, regardless of the other fields.
            `keras_layers`: the layers RandomFlip, RandomRotation, RandomTranslation, RandomShear, RandomZoom, in
            that order. `image_data_generator`: Keras's `ImageDataGenerator`.
        flip: directions, each flipped with probability 1/2, independently of the other.
        rotation: largest angle, either way: a fraction of a turn (`keras_layers`), degrees (`image_data_generator`).
        height_shift: largest shift of rows, either way, as a fraction of the height.
        width_shift: largest shift of columns, either way, as a fraction of the width.
        shear: largest shear, either way: columns per row (`keras_layers`, the layer's `x_factor`), or degrees
            (`image_data_generator`, where a "0.2" copied from a textbook is a fifth of a degree).
        zoom: zoom factors are uniform in [1 - zoom, 1 + zoom]; above 1 zooms out. `keras_layers` keeps the aspect
            ratio (a RandomZoom given a height factor only); `image_data_generator` draws rows and columns separately.
        fill: values outside of an image; None for the preset's (`reflect`, `nearest`). `reflect` repeats the edge
            (d c b a | a b c d | d c b a). `constant` is black. `wrap` has the period size - 1 in
            `image_data_generator` (SciPy's) and size in `keras_layers` (TensorFlow's).
        crop_scale: smallest and largest fraction of the area that a random resized crop takes; the crop is resized to
            the full size.
        brightness: brightness is multiplied by a factor uniform in [max(0, 1 - brightness), 1 + brightness].
        contrast: likewise, about the mean of the image's grey.
        saturation: likewise, about each pixel's grey.
    """

    preset: Preset = "none"
    flip: Flip = "none"
    rotation: float = 0.0
    height_shift: float = 0.0
    width_shift: float = 0.0
    shear: float = 0.0
    zoom: float = 0.0
    fill: Fill | None = None
    crop_scale: tuple[float, float] | None = None
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0

    @property
    def fill_mode(self) -> Fill:
        """The field `fill`, or the preset's if it is None."""
        return PRESET_FILLS[self.preset] if self.fill is None else self.fill

    @property
    def moves_pixels(self) -> bool:
        """Whether any geometric operation is on, so that images must be resampled."""
        geometry = (self.rotation, self.height_shift, self.width_shift, self.shear, self.zoom)
        moved = self.flip != "none" or self.crop_scale is not None or any(geometry)
        return self.preset != "none" and moved

    @property
    def changes_colours(self) -> bool:
        """Whether any colour operation is on."""
        return self.preset != "none" and any((self.brightness, self.contrast, self.saturation))

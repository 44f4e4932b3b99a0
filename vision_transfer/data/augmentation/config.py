"""What augmentation is asked for: one frozen, hashable dataclass, static under `jax.jit`."""

import dataclasses
import math
from typing import Literal, get_args

from vision_transfer.errors import UserError

Preset = Literal["none", "keras_layers", "image_data_generator"]
Flip = Literal["none", "horizontal", "vertical", "horizontal_and_vertical"]
Fill = Literal["nearest", "reflect", "constant", "wrap"]
Interpolation = Literal["bilinear", "nearest"]

PRESET_FILLS: dict[Preset, Fill] = {
    "none": "nearest",
    "keras_layers": "reflect",
    "image_data_generator": "nearest",
}
LARGEST_ROTATION = {"none": 360.0, "keras_layers": 1.0, "image_data_generator": 360.0}


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """How training images are varied. A zero, `none` or None turns an operation off.

    Attributes:
        preset: whose conventions hold. `none` turns everything off, whatever the other fields say.
            `keras_layers`: the layers RandomFlip, RandomRotation, RandomTranslation, RandomShear, RandomZoom, in
            that order. `image_data_generator`: Keras's `ImageDataGenerator`.
        flip: directions, each flipped with probability 1/2, independently of the other.
        rotation: largest angle, either way: a fraction of a turn (`keras_layers`), degrees (`image_data_generator`).
        height_shift: largest shift of rows, either way, as a fraction of the height.
        width_shift: largest shift of columns, either way, as a fraction of the width.
        shear: largest shear, either way: columns per row (`keras_layers`, the layer's `x_factor`), or degrees
            (`image_data_generator`, where a "0.2" copied from a textbook is a fifth of a degree).
        zoom: zoom factors are uniform in [1 - zoom, 1 + zoom]; above 1 zooms out. `keras_layers` keeps the aspect
            ratio (a RandomZoom given a height factor only); `image_data_generator` draws rows and columns apart.
        fill: what lies outside of an image; None takes the preset's (`reflect`, `nearest`). `reflect` repeats the
            edge (d c b a | a b c d | d c b a). `wrap` has the period size - 1 in `image_data_generator` (SciPy's)
            and size in `keras_layers` (TensorFlow's).
        fill_value: the value outside where fill is `constant`, on the images' scale of 0-255.
        interpolation: of the one resampling that all geometric operations share.
        crop_scale: a random resized crop takes this (smallest, largest) fraction of the area, back at full size.
        crop_ratio: smallest and largest width/height of the crop, in pixels.
        brightness: brightness is multiplied by a factor uniform in [max(0, 1 - brightness), 1 + brightness].
        contrast: likewise, about the mean of the image's grey.
        saturation: likewise, about each pixel's grey.

    Raises:
        UserError: a field has a value that is not allowed.
    """

    preset: Preset = "none"
    flip: Flip = "none"
    rotation: float = 0.0
    height_shift: float = 0.0
    width_shift: float = 0.0
    shear: float = 0.0
    zoom: float = 0.0
    fill: Fill | None = None
    fill_value: float = 0.0
    interpolation: Interpolation = "bilinear"
    crop_scale: tuple[float, float] | None = None
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0

    def __post_init__(self):
        for name, choices in (("preset", Preset), ("flip", Flip), ("interpolation", Interpolation)):
            _check_choice(name, getattr(self, name), get_args(choices))
        if self.fill is not None:
            _check_choice("fill", self.fill, get_args(Fill))
        _check_range("rotation", self.rotation, 0.0, LARGEST_ROTATION[self.preset])
        _check_range("height_shift", self.height_shift, 0.0, 1.0)
        _check_range("width_shift", self.width_shift, 0.0, 1.0)
        _check_range("shear", self.shear, 0.0, 1.0 if self.preset == "keras_layers" else 90.0)
        _check_range("zoom", self.zoom, 0.0, 1.0, below=True)
        _check_range("fill_value", self.fill_value, 0.0, 255.0)
        if self.crop_scale is not None:
            _check_pair("crop_scale", self.crop_scale, 1.0)
        _check_pair("crop_ratio", self.crop_ratio, math.inf)
        for name in ("brightness", "contrast", "saturation"):
            _check_range(name, getattr(self, name), 0.0, math.inf)

    @property
    def fill_mode(self) -> Fill:
        """The fill that holds: the field's, else the preset's."""
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


def _check_choice(name: str, found: object, allowed: tuple[str, ...]) -> None:
    if found not in allowed:
        raise UserError(f"augment.{name} is {found!r}: give one of {', '.join(allowed)}")


def _check_range(name: str, found: float, low: float, high: float, below: bool = False) -> None:
    number = isinstance(found, int | float) and not isinstance(found, bool)
    if not number or not (low <= found < high if below else low <= found <= high) or math.isinf(found):
        limits = f"at least {low:g}" + ("" if math.isinf(high) else f" and {'below' if below else 'at most'} {high:g}")
        raise UserError(f"augment.{name} is {found!r}: give a number, {limits}")


def _check_pair(name: str, found: object, high: float) -> None:
    if not isinstance(found, tuple) or len(found) != 2:
        raise UserError(f"augment.{name} is {found!r}: give a pair (smallest, largest)")
    if not all(isinstance(number, int | float) for number in found) or not 0 < found[0] <= found[1] <= high:
        limits = "" if math.isinf(high) else f" <= {high:g}"
        raise UserError(f"augment.{name} is {found!r}: give numbers with 0 < smallest <= largest{limits}")

"""The data set of a run, found again without decoding it; single images of it by name; and thumbnails as data URIs."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from vision_transfer.config import read_config
from vision_transfer.config.schema import DatasetConfig
from vision_transfer.data.folds import together
from vision_transfer.data.images.decode import UndecodableError
from vision_transfer.data.load import source_with_splits
from vision_transfer.data.source import Examples, fingerprint
from vision_transfer.data.subset import balanced_subset
from vision_transfer.errors import UserError
from vision_transfer.runtime.console import Screen
from vision_transfer.tasks.report.run_files import RunFiles, get

if TYPE_CHECKING:
    from PIL import Image as PillowImage

Image = UInt8[np.ndarray, "height width channels"]
# A page shows about this many training images, the same number of each class.
SAMPLES = 12
# Longest side of a thumbnail in pixels; it is shown at about half of it, to be sharp on a phone.
LONGEST_SIDE = 208
# Smaller images are enlarged by whole pixels and stored exactly, since JPEG would smear them.
SMALLEST_SIDE = 64
JPEG_QUALITY = 78


@dataclass(frozen=True)
class RunImages:
    """A run's data set: its config and class names, and the undecoded training and test examples."""

    config: DatasetConfig
    classes: tuple[str, ...]
    train: Examples
    test: Examples

    def test_images(self, files: Sequence[str]) -> dict[str, Image]:
        """Test images by name, at their own size; one that cannot be read is left out."""
        place_of = {file: place for place, file in enumerate(self.test.files)}
        found = {file: self._image(self.test, place_of[file]) for file in files if file in place_of}
        return {file: image for file, image in found.items() if image is not None}

    def samples(self) -> list[tuple[str, str, Image]]:
        """Name, class and pixels of a few training images, which every subset drawn with the run's seed includes."""
        examples, classes = self.train, len(self.classes)
        count = min(max(1, SAMPLES // classes) * min(classes, SAMPLES), len(examples.files))
        if not count:
            return []
        chosen = balanced_subset(examples.labels, examples.files, count, self.config.subset_seed)
        chosen = chosen[np.argsort(examples.labels[chosen], kind="stable")]
        return [
            (examples.files[place], self.classes[examples.labels[place]], image)
            for place in map(int, chosen)
            if (image := self._image(examples, place)) is not None
        ]

    def _image(self, examples: Examples, place: int) -> Image | None:
        try:
            return examples.pixels(place, self.config.channels)
        except (UndecodableError, UserError, OSError):
            return None


def images_of(run: RunFiles, cache_dir: Path, screen: Screen, missing: list[str]) -> RunImages | None:
    """The run's data set; decodes nothing. Where it is missing or has changed, adds a sentence to `missing`."""
    recorded = get(run.result, "dataset", "fingerprint")
    try:
        if recorded is None:  # else a stranger's folder could name any folder of this machine to be read and shown
            raise UserError("the run does not say which data it was trained on (result.json has no fingerprint)")
        data = read_config(run.folder.config_file).dataset
        source = source_with_splits(data, cache_dir, screen)
        if fingerprint(source) != recorded:
            raise UserError(f"{source.name}: the data has changed since the run (its fingerprint is different)")
    except UserError as error:
        missing.append(f"No images, since the data is not available: {error}")
        return None
    # the predictions of a run on the images of all folds are for these images
    test = source.splits["test"] if source.splits["test"].files else together(source.splits)
    return RunImages(data, source.classes, source.splits["train"], test)


def thumbnail(image: Image) -> Image:
    """The image with its longest side at most `LONGEST_SIDE`; a tiny one is enlarged by a whole factor."""
    height, width, channels = image.shape
    if _is_tiny(image):
        factor = LONGEST_SIDE // max(height, width)
        return image.repeat(factor, axis=0).repeat(factor, axis=1)
    small = _pillow(image)
    small.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    return np.asarray(small).reshape(small.height, small.width, channels)


def thumbnail_uri(image: Image) -> str:
    """The thumbnail of an image as a data URI."""
    return data_uri(thumbnail(image), exact=_is_tiny(image))


def data_uri(image: Image, *, exact: bool = False) -> str:
    """The image as `data:image/…`: a PNG where it must stay exact, a JPEG otherwise."""
    kind, options = ("png", {}) if exact else ("jpeg", {"quality": JPEG_QUALITY})
    stream = io.BytesIO()
    _pillow(image).save(stream, kind, optimize=True, **options)
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"


def _is_tiny(image: Image) -> bool:
    return max(image.shape[:2]) < SMALLEST_SIDE


def _pillow(image: Image) -> "PillowImage.Image":
    from PIL import Image as PillowImage

    return PillowImage.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)

"""The pictures behind a run: its data set found again, undecoded, and single images of it by split and name."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from vision_transfer.config import Config
from vision_transfer.data.dataset import DataRequest
from vision_transfer.data.find import find_source
from vision_transfer.data.images.decode import UndecodableError
from vision_transfer.data.load import with_held_out_splits
from vision_transfer.data.source import Examples, fingerprint
from vision_transfer.data.subset import balanced_subset
from vision_transfer.errors import UserError
from vision_transfer.runs.build import data_request
from vision_transfer.runtime.console import Screen

Image = UInt8[np.ndarray, "height width channels"]
# Of the training images a page shows about this many, as many of each class.
SAMPLES = 12


@dataclass(frozen=True)
class Album:
    """A run's data set.

    Attributes:
        request: what the run asked for.
        classes: class names.
        train: examples that may be trained on.
        test: examples that were tested.
    """

    request: DataRequest
    classes: tuple[str, ...]
    train: Examples
    test: Examples

    def test_images(self, files: Sequence[str]) -> dict[str, Image]:
        """Test images by name, at their own size; one that cannot be read is left out."""
        place_of = {file: place for place, file in enumerate(self.test.files)}
        found = {file: self._image(self.test, place_of[file]) for file in files if file in place_of}
        return {file: image for file, image in found.items() if image is not None}

    def samples(self) -> list[tuple[str, str, Image]]:
        """Name, class and pixels of a few training images: those that lie in every subset with the run's seed."""
        examples, classes = self.train, len(self.classes)
        count = min(max(1, SAMPLES // classes) * min(classes, SAMPLES), len(examples.files))
        if not count:
            return []
        chosen = balanced_subset(examples.labels, examples.files, count, self.request.subset_seed)
        chosen = chosen[np.argsort(examples.labels[chosen], kind="stable")]
        images = ((int(place), self._image(examples, int(place))) for place in chosen)
        return [
            (examples.files[place], self.classes[examples.labels[place]], image)
            for place, image in images
            if image is not None
        ]

    def _image(self, examples: Examples, place: int) -> Image | None:
        try:
            return examples.pixels(place, self.request.channels)
        except (UndecodableError, UserError, OSError):
            return None


def open_album(config: Config, expected_fingerprint: str | None, cache_dir: Path, screen: Screen) -> Album:
    """Finds the data set that a run's config names; decodes nothing.

    Args:
        config: of the run.
        expected_fingerprint: of the data that the run saw; None where it is not known.
        cache_dir: root of all caches.
        screen: for progress bars.

    Raises:
        UserError: the data is not there, or is not what the run saw.
    """
    request = data_request(config)
    source = with_held_out_splits(find_source(request, cache_dir, screen), request, cache_dir, screen)
    if expected_fingerprint is not None and fingerprint(source) != expected_fingerprint:
        raise UserError(f"{source.name}: the data found now is not what the run saw (its fingerprint is another)")
    return Album(request, source.classes, source.splits["train"], source.splits["test"])

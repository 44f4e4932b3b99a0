"""The images of a page: training samples, and test images with their predictions and Grad-CAM heat maps.

The data set of the run is found again without decoding it; single images are read by name and become data URIs.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt8

from vision_transfer.config import read_config
from vision_transfer.config.schema import DatasetConfig
from vision_transfer.data.folds import together
from vision_transfer.data.images.decode import UndecodableError
from vision_transfer.data.images.resize import resize
from vision_transfer.data.load import source_with_splits
from vision_transfer.data.source import Examples, fingerprint
from vision_transfer.data.subset import balanced_subset
from vision_transfer.errors import UserError
from vision_transfer.runs.load import load_run
from vision_transfer.runtime.console import Screen
from vision_transfer.tasks.explain.activations import last_map
from vision_transfer.tasks.explain.figures import superimpose
from vision_transfer.tasks.explain.heat_maps import grad_cam
from vision_transfer.tasks.report.run_files import UNREADABLE, Predictions, RunFiles, get

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
# Images in each of the two lists, and the first of them that get a heat map.
IMAGES, HEAT_MAPS = 12, 6
# Beyond this, four places would round to 1.
CERTAIN = 0.9999
# Heat maps are computed in batches of this size, the last one padded, so that one program serves every run of a
# network. Most of the time goes into compiling it, which takes half as long again for batches of 12.
HEAT_BATCH = 2


# Training images as `samples` (file, class, data URI); `mistakes` and `hits`: see `image_section`; `layer` of the heat
# maps or None.
ImageSection = dict[str, Any]
NO_IMAGES: ImageSection = {"samples": (), "mistakes": (), "hits": (), "layer": None}


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


def image_section(run: RunFiles, cache_dir: Path, screen: Screen, missing: list[str]) -> ImageSection:
    """Training samples, the most confident mistakes and the least confident correct predictions, with heat maps.

    Images that are not available are None, with a sentence in `missing`.
    """
    source = images_of(run, cache_dir, screen, missing)
    samples = [(file, label, thumbnail_uri(image)) for file, label, image in (source.samples() if source else ())]
    predictions = run.predictions
    if predictions is None:
        return NO_IMAGES | {"samples": samples}
    mistakes, hits = confident_mistakes(predictions), unconfident_hits(predictions)
    images = source.test_images([predictions.files[row] for row in (*mistakes, *hits)]) if source else {}
    first = (*mistakes[:HEAT_MAPS], *hits[:HEAT_MAPS])
    heated = [int(row) for row in first if predictions.files[row] in images]
    if predictions.is_out_of_fold and heated:
        missing.append("No heat maps: networks of other runs, those of the folds, predicted these images.")
        heated = []
    heat, layer = {}, None
    if heated:
        pixels, targets = [images[predictions.files[row]] for row in heated], predictions.predicted[heated]
        try:
            overlays, layer = heat_overlays(run.folder.path, pixels, targets, cache_dir, screen)
            heat = dict(zip(heated, overlays, strict=True))
        except (UserError, OSError, *UNREADABLE) as error:
            missing.append(f"No heat maps: {error}")

    def predicted_image(row: int) -> dict[str, str | None]:
        file = predictions.files[row]
        return {
            "file": file,
            "label": run.classes[predictions.labels[row]],
            "predicted": run.classes[predictions.predicted[row]],
            "confidence": probability_text(predictions.confidence[row]),
            "uri": thumbnail_uri(images[file]) if file in images else None,
            "heat": data_uri(heat[row]) if row in heat else None,
        }

    return {
        "samples": samples,
        "mistakes": [predicted_image(row) for row in mistakes.tolist()],
        "hits": [predicted_image(row) for row in hits.tolist()],
        "layer": layer,
    }


def confident_mistakes(predictions: Predictions) -> Int64[np.ndarray, "chosen"]:
    """Rows of the most confident mistakes, the most confident first."""
    return _chosen(predictions, ~predictions.right, -predictions.margin)


def unconfident_hits(predictions: Predictions) -> Int64[np.ndarray, "chosen"]:
    """Rows of the least confident correct predictions, the least confident first."""
    return _chosen(predictions, predictions.right, predictions.margin)


def _chosen(
    predictions: Predictions, among: Bool[np.ndarray, "examples"], order: Float64[np.ndarray, "examples"]
) -> Int64[np.ndarray, "chosen"]:
    # names decide between equals, so that the choice does not depend on the order of the rows
    rows = np.lexsort((np.array(predictions.files), order))
    return rows[among[rows]][:IMAGES]


def probability_text(probability: float) -> str:
    """Four decimal places, without rounding up to 1."""
    return "above 0.9999" if probability > CERTAIN else f"{probability:.4f}"


def heat_overlays(
    path: Path, images: Sequence[Image], targets: Int64[np.ndarray, "images"], cache_dir: Path, screen: Screen
) -> tuple[list[Image], str]:
    """Thumbnails of images with Grad-CAM heat maps over them for the target classes, and the layer of the maps.

    Raises:
        UserError: the run's checkpoints or weights are missing, or its network has no convolution.
    """
    run = load_run(path, cache_dir, screen, allow_download=False)
    layer = last_map(run.network)
    size, resampling = run.network.input_shape[0], run.config.dataset.resampling
    batch = np.stack([resize(image, size, resampling) for image in images])
    heat = []
    for first in range(0, len(batch), HEAT_BATCH):
        places = np.minimum(np.arange(first, first + HEAT_BATCH), len(batch) - 1)
        heat += list(grad_cam(run.network, run.variables, batch[places], layer, targets[places]))
    return [superimpose(thumbnail(image), own) for image, own in zip(images, heat, strict=False)], layer

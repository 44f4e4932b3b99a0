"""The images of a page: training samples, and test images with their predictions and Grad-CAM heat maps."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from vision_transfer.data.images.resize import resize
from vision_transfer.errors import UserError
from vision_transfer.runs.load import load_run
from vision_transfer.runtime.console import Screen
from vision_transfer.tasks.explain.activations import last_map
from vision_transfer.tasks.explain.figures import superimpose
from vision_transfer.tasks.explain.heat_maps import grad_cam
from vision_transfer.tasks.report.images import Image, data_uri, images_of, thumbnail, thumbnail_uri
from vision_transfer.tasks.report.run_files import UNREADABLE, Predictions, RunFiles

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
    heated = [int(row) for row in (*mistakes[:HEAT_MAPS], *hits[:HEAT_MAPS]) if predictions.files[row] in images]
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

"""The pictures of a page: training samples, and test images with what the network says of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vision_transfer.config import read_config
from vision_transfer.errors import UserError
from vision_transfer.runtime.console import Screen
from vision_transfer.tasks.report.grad_cam import heat_overlays
from vision_transfer.tasks.report.images import Album, Image, open_album
from vision_transfer.tasks.report.record import UNREADABLE, Predictions, RunRecord, get
from vision_transfer.tasks.report.test_section import probability_text, sure_mistakes, unsure_hits
from vision_transfer.tasks.report.thumbnails import data_uri, is_tiny, shrunk

# Of the mistakes and of the hits, so many get a heat map.
HEAT_MAPS_OF_EACH = 6


@dataclass(frozen=True)
class Sample:
    """A training image: file name, class, and the picture as a data URI."""

    file: str
    label: str
    uri: str


@dataclass(frozen=True)
class Judged:
    """A test image and what the network says of it; `uri` and `heat` are data URIs, None where there is no picture."""

    file: str
    label: str
    predicted: str
    confidence: str
    uri: str | None
    heat: str | None


@dataclass(frozen=True)
class Gallery:
    """All pictures of a run's page.

    Attributes:
        samples: of the training data.
        mistakes: the surest ones.
        hits: the least sure ones.
        layer: of the heat maps, or None where there are none.
    """

    samples: tuple[Sample, ...]
    mistakes: tuple[Judged, ...]
    hits: tuple[Judged, ...]
    layer: str | None


def find_album(record: RunRecord, cache_dir: Path, screen: Screen, missing: list[str]) -> Album | None:
    """The run's data set; a sentence is added to `missing` where it cannot be had."""
    try:
        config = read_config(record.folder.config_file)
        return open_album(config, get(record.result, "dataset", "fingerprint"), cache_dir, screen)
    except UserError as error:
        missing.append(f"No pictures, since the data cannot be had: {error}")
        return None


def gallery(record: RunRecord, cache_dir: Path, screen: Screen, missing: list[str]) -> Gallery:
    """The pictures that can be had; for the others there is a sentence in `missing`."""
    album = find_album(record, cache_dir, screen, missing)
    samples = () if album is None else tuple(Sample(file, label, _uri(image)) for file, label, image in album.samples())
    predictions = record.predictions
    if predictions is None:
        return Gallery(samples, (), (), None)
    mistakes, hits = sure_mistakes(predictions), unsure_hits(predictions)
    chosen = [*mistakes, *hits]
    images = {} if album is None else album.test_images([predictions.files[row] for row in chosen])
    heated = [
        row for row in (*mistakes[:HEAT_MAPS_OF_EACH], *hits[:HEAT_MAPS_OF_EACH]) if predictions.files[row] in images
    ]
    heat, layer = _heat(record, predictions, heated, images, cache_dir, screen, missing)

    def judged(rows: np.ndarray) -> tuple[Judged, ...]:
        return tuple(_judged(predictions, record.classes, int(row), images, heat) for row in rows)

    return Gallery(samples, judged(mistakes), judged(hits), layer)


def _heat(
    record: RunRecord,
    predictions: Predictions,
    rows: Sequence[int],
    images: Mapping[str, Image],
    cache_dir: Path,
    screen: Screen,
    missing: list[str],
) -> tuple[dict[str, Image], str | None]:
    if not rows:
        return {}, None
    wanted = {predictions.files[row]: images[predictions.files[row]] for row in rows}
    try:
        return heat_overlays(
            record.folder.path, wanted, [int(predictions.predicted[row]) for row in rows], cache_dir, screen
        )
    except (UserError, OSError, *UNREADABLE) as error:
        missing.append(f"No heat maps: {error}")
        return {}, None


def _judged(
    predictions: Predictions, classes: Sequence[str], row: int, images: Mapping[str, Image], heat: Mapping[str, Image]
) -> Judged:
    file = predictions.files[row]
    return Judged(
        file,
        classes[int(predictions.labels[row])],
        classes[int(predictions.predicted[row])],
        probability_text(float(predictions.confidence[row])),
        _uri(images[file]) if file in images else None,
        data_uri(heat[file]) if file in heat else None,
    )


def _uri(image: Image) -> str:
    return data_uri(shrunk(image), exact=is_tiny(image))

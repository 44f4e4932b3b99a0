"""Features of all pictures by VGG16's convolutions, out of the cache that training uses too."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from vision_transfer.config import Config
from vision_transfer.data.dataset import Split
from vision_transfer.data.images.cache import load_images
from vision_transfer.data.images.resize import Form
from vision_transfer.data.source import Source
from vision_transfer.features import Prefix, features
from vision_transfer.models.backbones import backbone_layers
from vision_transfer.models.network import Network, all_parameter_shapes
from vision_transfer.models.precision import Numerics
from vision_transfer.models.pretrained.load import PretrainedWeights, load_pretrained
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.devices import local_mesh
from vision_transfer.tasks.check.scan import Looked

BACKBONE, LAYER = "vgg16", "block5_pool"
# Five poolings leave one place of 32 pixels.
SMALLEST_SIZE = 32
_RGB = 3
# Pictures whose maps are averaged at a time.
_ROWS = 256


@dataclass(frozen=True)
class PictureFeatures:
    """Features of those examples that decode.

    Attributes:
        places: numbers of these among all examples.
        values: the mean of each channel of the last map.
    """

    places: np.ndarray
    values: Float[np.ndarray, "pictures channels"]


def vgg_weights(config: Config, cache_dir: Path, screen: Screen) -> PretrainedWeights:
    """VGG16's published weights, or the file that the config names for it; only `always` fetches them.

    Raises:
        UserError: they are not on this machine, or cannot be fetched.
    """
    path = config.model.weights_path if config.model.backbone == BACKBONE else None
    whole = Network(backbone_layers(BACKBONE), (), (SMALLEST_SIZE, SMALLEST_SIZE, _RGB))
    return load_pretrained(
        BACKBONE,
        include_classifier=False,
        shapes=all_parameter_shapes(whole),
        cache_dir=cache_dir,
        path=None if path is None else Path(path).expanduser(),
        screen=screen,
        allow_download=config.check.labels == "always",
    )


def picture_features(
    config: Config, source: Source, looked: Looked, weights: PretrainedWeights, cache_dir: Path, screen: Screen
) -> PictureFeatures:
    """Features of every picture, at the size at which it would be trained on."""
    size = max(config.dataset.image_size or source.default_size, SMALLEST_SIZE)
    splits, _ = load_images(source, Form(size, _RGB, config.dataset.resampling), cache_dir, screen)
    plain = Network(backbone_layers(BACKBONE), (), (size, size, _RGB), numerics=Numerics(config.precision))
    network = replace(plain, preprocessing=weights.preprocessing)
    prefix = Prefix(
        network,
        {"params": weights.params, "batch_stats": {}},
        local_mesh(),
        config.eval_batch_size,
        cache_dir,
        dtype=config.features.dtype,
        backbone=BACKBONE,
    )
    # The pictures that decode are the same ones, in the same order, as those of the first pass.
    values = [_means(prefix, splits[name], screen) for name in source.splits if len(splits[name])]
    return PictureFeatures(np.flatnonzero(looked.decoded), np.concatenate(values))


def _means(prefix: Prefix, split: Split, screen: Screen) -> Float[np.ndarray, "pictures channels"]:
    rows = features(prefix, LAYER, split.images, split.digests, screen)
    starts = range(0, len(split), _ROWS)
    parts = [rows[np.arange(start, min(start + _ROWS, len(split)))].astype(np.float32) for start in starts]
    return np.concatenate([part.mean(axis=(1, 2)) for part in parts])

"""VGG16's convolutional features of all images, from the cache that training also uses."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from vision_transfer.config import Config
from vision_transfer.data.dataset import Split
from vision_transfer.data.images.cache import load_images
from vision_transfer.data.images.resize import Form
from vision_transfer.data.source import Source
from vision_transfer.feature_cache import Prefix, features
from vision_transfer.models.backbones.registry import backbone_rows
from vision_transfer.models.load import load_backbone_weights
from vision_transfer.models.network import Network
from vision_transfer.models.precision import Numerics
from vision_transfer.models.pretrained.load import PretrainedWeights
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.devices import local_mesh

BACKBONE, LAYER = "vgg16", "block5_pool"
# Five poolings reduce 32 pixels to one.
SMALLEST_SIZE = 32
_RGB = 3
# Images whose maps are averaged at a time.
_ROWS = 256


def vgg_weights(config: Config, cache_dir: Path, screen: Screen) -> PretrainedWeights:
    """VGG16's published weights, or the file that the config names; fetches them only if `check.labels` is `always`.

    Raises:
        UserError: they are not on this machine, or cannot be fetched.
    """
    path = config.model.weights_path if config.model.backbone == BACKBONE else None
    return load_backbone_weights(
        BACKBONE,
        channels=_RGB,
        cache_dir=cache_dir,
        path=path,
        screen=screen,
        allow_download=config.check.labels == "always",
    )


def image_features(
    config: Config, source: Source, weights: PretrainedWeights, cache_dir: Path, screen: Screen
) -> Float[np.ndarray, "images channels"]:
    """The mean of every channel of the last map for every image that decodes, at the size of training."""
    size = max(config.dataset.image_size or source.default_size, SMALLEST_SIZE)
    splits, _ = load_images(source, Form(size, _RGB, config.dataset.resampling), cache_dir, screen)
    plain = Network(backbone_rows(BACKBONE), (), (size, size, _RGB), numerics=Numerics(config.precision))
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
    # The images that decode are the same, in the same order, as in the scan.
    values = [_means(prefix, splits[name], screen) for name in source.splits if len(splits[name])]
    return np.concatenate(values)


def _means(prefix: Prefix, split: Split, screen: Screen) -> Float[np.ndarray, "images channels"]:
    rows = features(prefix, LAYER, split.images, split.digests, screen)
    starts = range(0, len(split), _ROWS)
    parts = [rows[np.arange(start, min(start + _ROWS, len(split)))].astype(np.float32) for start in starts]
    return np.concatenate([part.mean(axis=(1, 2)) for part in parts])

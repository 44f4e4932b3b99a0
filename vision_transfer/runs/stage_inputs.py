"""What the steps of a stage are fed: images, or the features of their frozen prefix out of the cache."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jax.sharding import Mesh

from vision_transfer.data.augmentation.variants import BankRows
from vision_transfer.data.dataset import Split
from vision_transfer.features import FeatureRows, Prefix, concatenated, features
from vision_transfer.features.budget import Request
from vision_transfer.models.inference import Rows
from vision_transfer.models.network import Params
from vision_transfer.runs.build import Stage, build_augmentation
from vision_transfer.runs.setup import Setup
from vision_transfer.runtime.console import Screen
from vision_transfer.train.device_feed import TrainingRows
from vision_transfer.train.stage_types import StageData


@dataclass(frozen=True)
class Feeding:
    """What inputs are made of and by.

    Attributes:
        setup: of the run.
        mesh: devices to compute features on.
        cache_dir: root of all caches.
        screen: for progress.
    """

    setup: Setup
    mesh: Mesh
    cache_dir: Path
    screen: Screen


def stage_data(feeding: Feeding, position: int, variables: dict[str, Params]) -> StageData:
    """Inputs and labels of training and validation of the stage at a position of the schedule.

    Raises:
        UserError: features that are missing need more disk than is free.
    """
    stage, validation = feeding.setup.stages[position], feeding.setup.dataset.validation
    _compute_for_later_stages(feeding, position, variables)
    train = _training_rows(feeding, stage, variables)
    return StageData(train, split_inputs(feeding, stage, variables, validation), validation.labels)


def split_inputs(feeding: Feeding, stage: Stage, variables: dict[str, Params], split: Split) -> Rows:
    """Inputs of a split that is not augmented, at the layer where a stage's evaluation starts."""
    if stage.cached is None:
        return split.images
    return _computed(feeding, stage.cached, plain_request(feeding, variables, split))


def plain_request(feeding: Feeding, variables: dict[str, Params], split: Split, name: str = "") -> Request:
    """The features of a split that is not augmented."""
    return Request(name, _prefix(feeding, variables), split.images, split.digests)


def training_requests(feeding: Feeding, variables: dict[str, Params]) -> list[Request]:
    """The features of the training images: a request, or one for each variant of the bank; none for fresh variants."""
    split, augmentation = feeding.setup.dataset.train, build_augmentation(feeding.setup.config)
    plain = plain_request(feeding, variables, split, "train")
    if augmentation is None:
        return [plain]
    return [
        Request(
            f"train {variant}",
            replace(plain.prefix, augmentation=augmentation, variant=variant),
            BankRows(split.images, split.example_ids, augmentation, variant),
            split.digests,
        )
        for variant in range(augmentation.bank)
    ]


def _training_rows(feeding: Feeding, stage: Stage, variables: dict[str, Params]) -> TrainingRows:
    split = feeding.setup.dataset.train
    if stage.cached is None or not stage.trains_from_cache:
        return TrainingRows(split.images, split.labels, split.example_ids)
    variants = [_computed(feeding, stage.cached, request) for request in training_requests(feeding, variables)]
    count = len(variants)
    return TrainingRows(
        concatenated(variants), np.tile(split.labels, count), np.tile(split.example_ids, count), variants=count
    )


def _compute_for_later_stages(feeding: Feeding, position: int, variables: dict[str, Params]) -> None:
    """Features of the shallower layers that later stages start from, so that this stage's are computed from them.

    They lie inside this stage's frozen prefix, so they are those that the later stages will ask for, unless a stage
    between trains them.
    """
    stages, index = feeding.setup.stages, feeding.setup.network.index
    now = stages[position]
    if now.cached is None:
        return
    later = [(index(stage.cached), stage) for stage in stages[position + 1 :] if stage.cached is not None]
    for depth, stage in sorted(later, key=lambda pair: pair[0]):
        if depth < index(now.cached):
            _training_rows(feeding, stage, variables)
            split_inputs(feeding, stage, variables, feeding.setup.dataset.validation)


def _computed(feeding: Feeding, layer: str, request: Request) -> FeatureRows:
    return features(request.prefix, layer, request.images, request.digests, feeding.screen)


def _prefix(feeding: Feeding, variables: dict[str, Params]) -> Prefix:
    config = feeding.setup.config
    return Prefix(
        feeding.setup.network,
        variables,
        feeding.mesh,
        config.eval_batch_size,
        feeding.cache_dir,
        dtype=config.features.dtype,
        backbone=config.model.backbone,
    )

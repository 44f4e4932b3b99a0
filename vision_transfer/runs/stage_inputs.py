"""Inputs of a stage's steps: images, or cached features of their frozen prefix."""

from dataclasses import replace

import numpy as np

from vision_transfer.data.augmentation.augment import BankRows
from vision_transfer.data.dataset import Split
from vision_transfer.data.rows import Rows
from vision_transfer.feature_cache import FeatureRows, Prefix, concatenated, features
from vision_transfer.feature_cache.budget import Request
from vision_transfer.runs.prepare import Run
from vision_transfer.training.device_feed import TrainingRows
from vision_transfer.training.stage import Stage, TrainingData, Variables


def stage_data(run: Run, position: int, variables: Variables) -> TrainingData:
    """Inputs and labels of training and validation of the stage at a position of the schedule.

    Raises:
        UserError: features that are missing need more disk than is free.
    """
    stage, validation = run.stages[position], run.dataset.validation
    _compute_for_later_stages(run, position, variables)
    train = _training_rows(run, stage, variables)
    return TrainingData(train, split_inputs(run, stage, variables, validation), validation.labels)


def split_inputs(run: Run, stage: Stage, variables: Variables, split: Split) -> Rows:
    """Inputs of a split that is not augmented, at the layer where a stage's evaluation starts."""
    return stage_inputs(run, stage, plain_request(run, variables, split))


def stage_inputs(run: Run, stage: Stage, request: Request) -> Rows:
    """Requested images, or their features, at the layer where a stage's evaluation starts."""
    return request.images if stage.cached is None else _computed(run, stage.cached, request)


def plain_request(run: Run, variables: Variables, split: Split, name: str = "") -> Request:
    """The features of a split that is not augmented."""
    return Request(name, _prefix(run, variables), split.images, split.digests)


def training_requests(run: Run, stage: Stage, variables: Variables) -> list[Request]:
    """A stage's training features: a request, or one for each variant of a bank; none with fresh variants."""
    split, augmentation = run.dataset.train, stage.augmentation
    plain = plain_request(run, variables, split, "train")
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


def _training_rows(run: Run, stage: Stage, variables: Variables) -> TrainingRows:
    split = run.dataset.train
    if stage.cached is None or not stage.trains_from_cache:
        return TrainingRows(split.images, split.labels, split.example_ids)
    variants = [_computed(run, stage.cached, request) for request in training_requests(run, stage, variables)]
    count = len(variants)
    return TrainingRows(
        concatenated(variants), np.tile(split.labels, count), np.tile(split.example_ids, count), variants=count
    )


def _compute_for_later_stages(run: Run, position: int, variables: Variables) -> None:
    """Features of the shallower layers that later stages start from, so that this stage's are computed from them.

    They lie inside this stage's frozen prefix, so they are those that the later stages will ask for, unless a stage
    between trains them.
    """
    stages, index = run.stages, run.network.index
    now = stages[position]
    if now.cached is None:
        return
    later = [(index(stage.cached), stage) for stage in stages[position + 1 :] if stage.cached is not None]
    for depth, stage in sorted(later, key=lambda pair: pair[0]):
        if depth < index(now.cached):
            _training_rows(run, stage, variables)
            split_inputs(run, stage, variables, run.dataset.validation)


def _computed(run: Run, layer: str, request: Request) -> FeatureRows:
    return features(request.prefix, layer, request.images, request.digests, run.screen)


def _prefix(run: Run, variables: Variables) -> Prefix:
    config = run.config
    return Prefix(
        run.network,
        variables,
        run.mesh,
        config.eval_batch_size,
        run.options.cache_dir,
        dtype=config.features.dtype,
        backbone=config.model.backbone,
    )

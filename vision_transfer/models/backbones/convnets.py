"""The small convnets of the classic small-data experiments: MNIST; cats and dogs at 150 and 180 pixels."""

from vision_transfer.models.backbones.backbone import Backbone
from vision_transfer.models.layers import BatchNorm, Conv, MaxPool, Row


def convnet(*features: int, pool_last: bool) -> Backbone:
    """Convolutions of so many features, with a pool after each, except after the last without `pool_last`."""
    rows: list[Row] = []
    batch_norm_rows: list[Row] = []
    for i, width in enumerate(features, start=1):
        pool = [MaxPool(f"pool{i}")] if i < len(features) or pool_last else []
        norm = BatchNorm(f"norm{i}", activation="relu")
        rows += [Conv(f"conv{i}", width), *pool]
        batch_norm_rows += [Conv(f"conv{i}", width, activation="linear"), norm, *pool]
    return Backbone(tuple(rows), tuple(batch_norm_rows), fine_tune_from=f"conv{len(features)}")

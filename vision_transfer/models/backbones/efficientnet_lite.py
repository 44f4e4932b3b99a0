"""EfficientNet-Lite (Tan and Le 2019, arXiv:1905.11946): no squeeze-excite, relu6, stem and top of one width.

Table: https://github.com/tensorflow/tpu/blob/master/models/official/efficientnet/lite. Names are those that Keras gives
to EfficientNet's layers (keras/src/applications/efficientnet.py).
"""

import math
from dataclasses import dataclass

from vision_transfer.models.backbones.backbone import Backbone
from vision_transfer.models.layers import (
    Activate,
    BatchNorm,
    Block,
    Conv,
    Dense,
    DepthwiseConv,
    Dropout,
    GlobalAveragePool,
    Merge,
    Row,
)

STEM_FEATURES, TOP_FEATURES = 32, 1280
# Widths are multiples of this.
WIDTH_UNIT = 8
FIRST_LETTER = ord("a")
# The last stage of several blocks; from it on lie four fifths of the parameters and a third of the operations.
FINE_TUNE_FROM = "block6"


@dataclass(frozen=True)
class Stage:
    """Inverted residual blocks of one width; the first one has the stride."""

    expansion: int
    kernel_size: int
    strides: int
    features: int
    repeats: int


# EfficientNet-B0's, which Lite0 shares.
STAGES = (
    Stage(1, 3, 1, 16, 1),
    Stage(6, 3, 2, 24, 2),
    Stage(6, 5, 2, 40, 2),
    Stage(6, 3, 2, 80, 3),
    Stage(6, 5, 1, 112, 3),
    Stage(6, 5, 2, 192, 4),
    Stage(6, 3, 1, 320, 1),
)


def efficientnet_lite(*, width: float, depth: float, image_size: int, dropout: float) -> Backbone:
    """The network whose stages are so much wider and deeper than Lite0's; the first and last keep their depth."""
    rows: list[Row] = [*_conv("stem", STEM_FEATURES, 3, 2)]
    before = STEM_FEATURES
    for number, stage in enumerate(STAGES, start=1):
        is_edge = number in (1, len(STAGES))
        repeats = stage.repeats if is_edge else math.ceil(depth * stage.repeats)
        features = _scaled(stage.features, width)
        for repeat in range(repeats):
            name = f"block{number}{chr(FIRST_LETTER + repeat)}"
            strides = stage.strides if repeat == 0 else 1
            rows += _inverted_residual(name, f"block{number}", stage, before, features, strides)
            before = features
    rows += _conv("top", TOP_FEATURES, 1, 1)
    classifier = (GlobalAveragePool("avg_pool"), Dropout("top_dropout", dropout), Dense("predictions", 1000))
    return Backbone(
        tuple(rows),
        classifier=classifier,
        preprocessing="lite",
        image_size=image_size,
        fine_tune_from=FINE_TUNE_FROM,
    )


def _conv(name: str, features: int, kernel_size: int, strides: int) -> tuple[Row, ...]:
    return (
        Conv(f"{name}_conv", features, kernel_size, "same", "linear", name, strides, bias=False),
        BatchNorm(f"{name}_bn", stage=name),
        Activate(f"{name}_activation", "relu6", stage=name),
    )


def _inverted_residual(
    name: str, stage_name: str, stage: Stage, before: int, features: int, strides: int
) -> tuple[Row, ...]:
    """1×1 up, depthwise, 1×1 down; a block with an identity branch where the shape stays the same."""
    rows: list[Row] = []
    if stage.expansion != 1:
        rows += [
            Conv(f"{name}_expand_conv", before * stage.expansion, 1, "same", "linear", stage_name, bias=False),
            BatchNorm(f"{name}_expand_bn", stage=stage_name),
            Activate(f"{name}_expand_activation", "relu6", stage=stage_name),
        ]
    rows += [
        DepthwiseConv(f"{name}_dwconv", stage.kernel_size, stage=stage_name, strides=strides),
        BatchNorm(f"{name}_bn", stage=stage_name),
        Activate(f"{name}_activation", "relu6", stage=stage_name),
        Conv(f"{name}_project_conv", features, 1, "same", "linear", stage_name, bias=False),
        BatchNorm(f"{name}_project_bn", stage=stage_name),
    ]
    if strides != 1 or before != features:
        return tuple(rows)
    return (Block(name, (tuple(rows), ()), Merge(f"{name}_add", "add"), stage_name),)


def _scaled(features: int, width: float) -> int:
    """The scaled width, rounded to a multiple of `WIDTH_UNIT`, but not down by more than a tenth."""
    scaled = features * width
    rounded = max(WIDTH_UNIT, int(scaled + WIDTH_UNIT / 2) // WIDTH_UNIT * WIDTH_UNIT)
    return rounded + WIDTH_UNIT if rounded < 0.9 * scaled else rounded


EFFICIENTNET_LITE0 = efficientnet_lite(width=1.0, depth=1.0, image_size=224, dropout=0.2)
EFFICIENTNET_LITE1 = efficientnet_lite(width=1.0, depth=1.1, image_size=240, dropout=0.2)
EFFICIENTNET_LITE2 = efficientnet_lite(width=1.1, depth=1.2, image_size=260, dropout=0.3)

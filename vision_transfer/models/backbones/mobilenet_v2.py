"""MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381, Table 2) of width 1, with Keras's names.

Table: keras/src/applications/mobilenet_v2.py.
"""

from functools import partial

from vision_transfer.models.backbones.backbone import Backbone
from vision_transfer.models.layers import (
    Activate,
    BatchNorm,
    Block,
    Conv,
    Dense,
    DepthwiseConv,
    GlobalAveragePool,
    Merge,
    Row,
    ZeroPad,
)

STEM_FEATURES, TOP_FEATURES = 32, 1280
# Width, repeats and stride of the first repeat, of each group of bottlenecks.
BOTTLENECKS = ((16, 1, 1), (24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1))
EXPANSION = 6
KERNEL_SIZE = 3
_norm = partial(BatchNorm, momentum=0.999, epsilon=1e-3)


def mobilenet_v2() -> Backbone:
    """The network; each group of bottlenecks of one width is a stage."""
    rows: list[Row] = [
        Conv("Conv1", STEM_FEATURES, KERNEL_SIZE, "same", "linear", "stem", strides=2, bias=False),
        _norm("bn_Conv1", stage="stem"),
        Activate("Conv1_relu", "relu6", stage="stem"),
    ]
    before, number = STEM_FEATURES, 0
    for group, (features, repeats, strides) in enumerate(BOTTLENECKS, start=1):
        for repeat in range(repeats):
            rows += _bottleneck(number, f"bottleneck{group}", before, features, strides if repeat == 0 else 1)
            before, number = features, number + 1
    rows += [
        Conv("Conv_1", TOP_FEATURES, 1, "valid", "linear", "top", bias=False),
        _norm("Conv_1_bn", stage="top"),
        Activate("out_relu", "relu6", stage="top"),
    ]
    classifier = (GlobalAveragePool("global_average_pooling2d"), Dense("predictions", 1000))
    return Backbone(tuple(rows), classifier=classifier, preprocessing="tf")


def _bottleneck(number: int, stage: str, before: int, features: int, strides: int) -> tuple[Row, ...]:
    """1×1 up, depthwise, 1×1 down; a block with an identity branch where the shape stays the same."""
    name = f"block_{number}" if number else "expanded_conv"
    rows: list[Row] = []
    if number:
        rows += [
            Conv(f"{name}_expand", before * EXPANSION, 1, "same", "linear", stage, bias=False),
            _norm(f"{name}_expand_BN", stage=stage),
            Activate(f"{name}_expand_relu", "relu6", stage=stage),
        ]
    if strides == 2:
        rows.append(ZeroPad(f"{name}_pad", "same", stage, KERNEL_SIZE, strides))
    rows += [
        DepthwiseConv(f"{name}_depthwise", KERNEL_SIZE, "same" if strides == 1 else "valid", "linear", stage, strides),
        _norm(f"{name}_depthwise_BN", stage=stage),
        Activate(f"{name}_depthwise_relu", "relu6", stage=stage),
        Conv(f"{name}_project", features, 1, "same", "linear", stage, bias=False),
        _norm(f"{name}_project_BN", stage=stage),
    ]
    if strides != 1 or before != features:
        return tuple(rows)
    return (Block(name, (tuple(rows), ()), Merge(f"{name}_add", "add"), stage),)


MOBILENET_V2 = mobilenet_v2()

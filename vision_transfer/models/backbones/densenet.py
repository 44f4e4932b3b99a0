"""DenseNet121 (Huang et al. 2017, arXiv:1608.06993, Table 1), with Keras's names.

Table: keras/src/applications/densenet.py. Keras names the two paddings automatically, by counting them in a fresh
session.
"""

from functools import partial

from vision_transfer.models.backbones.backbone import Backbone
from vision_transfer.models.layers import (
    Activate,
    AveragePool,
    BatchNorm,
    Block,
    Conv,
    Dense,
    GlobalAveragePool,
    MaxPool,
    Merge,
    Row,
    ZeroPad,
)
from vision_transfer.models.pretrained.releases import KERAS_LICENCE, keras_releases

STEM_FEATURES = 64
# Numbers of dense blocks of the stages conv2 to conv5.
BLOCKS = (6, 12, 24, 16)
# Each block adds so many channels, from a bottleneck so much wider.
GROWTH, BOTTLENECK = 32, 4
_norm = partial(BatchNorm, epsilon=1.001e-5)
_linear = partial(Conv, activation="linear", bias=False)

# In %, as https://keras.io/api/applications gives it.
KERAS_TOP_1 = 75.0
RELEASES = keras_releases(
    "densenet121",
    folder="densenet",
    md5s=("30ee3e1110167f948a6b9946edeeb738", "9d60b8095a5708f2dcce2bca79d332c7"),
    sizes=(29_084_464, 33_188_688),
    preprocessing="torch",
    licence=KERAS_LICENCE,
    label="DenseNet121",
    top_1=KERAS_TOP_1,
)


def densenet121() -> Backbone:
    """The network; a transition belongs to the stage that it ends."""
    rows: list[Row] = [
        ZeroPad("zero_padding2d", ((3, 3), (3, 3)), "conv1"),
        _linear("conv1_conv", STEM_FEATURES, 7, strides=2, stage="conv1"),
        _norm("conv1_bn", stage="conv1"),
        Activate("conv1_relu", stage="conv1"),
        ZeroPad("zero_padding2d_1", ((1, 1), (1, 1)), "conv1"),
        MaxPool("pool1", 3, "conv1", strides=2),
    ]
    features, last = STEM_FEATURES, len(BLOCKS) + 1
    for number, blocks in enumerate(BLOCKS, start=2):
        stage = f"conv{number}"
        rows += [_dense(f"{stage}_block{block}", stage) for block in range(1, blocks + 1)]
        features += blocks * GROWTH
        if number < last:
            features //= 2
            rows += _transition(f"pool{number}", stage, features)
    rows += [_norm("bn", stage=f"conv{last}"), Activate("relu", stage=f"conv{last}")]
    classifier = (GlobalAveragePool("avg_pool"), Dense("predictions", 1000))
    return Backbone(
        tuple(rows), releases=RELEASES, classifier=classifier, preprocessing="torch", fine_tune_from="conv5"
    )


def _dense(name: str, stage: str) -> Block:
    """New channels, computed from all that there are, behind them."""
    branch = (
        _norm(f"{name}_0_bn"),
        Activate(f"{name}_0_relu"),
        _linear(f"{name}_1_conv", BOTTLENECK * GROWTH, 1),
        _norm(f"{name}_1_bn"),
        Activate(f"{name}_1_relu"),
        _linear(f"{name}_2_conv", GROWTH, 3, "same"),
    )
    return Block(name, ((), branch), Merge(f"{name}_concat", "concat"), stage)


def _transition(name: str, stage: str, features: int) -> tuple[Row, ...]:
    """Half the channels, a quarter of the positions."""
    return (
        _norm(f"{name}_bn", stage=stage),
        Activate(f"{name}_relu", stage=stage),
        _linear(f"{name}_conv", features, 1, stage=stage),
        AveragePool(f"{name}_pool", stage=stage),
    )


DENSENET121 = densenet121()

"""ResNet50 (He et al. 2016, arXiv:1512.03385, Table 1), with Keras's names.

Table: keras/src/applications/resnet.py. Unlike PyTorch's, the first 1×1 convolution of a block has its stride, and
convolutions have biases.
"""

from functools import partial

from vision_transfer.models.backbones.backbone import Backbone
from vision_transfer.models.layers import (
    Activate,
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
from vision_transfer.models.pretrained.releases import KERAS_LICENCE, Release, keras_download

STEM_FEATURES = 64
# Width of the 3×3 convolutions and number of blocks, of the stages conv2 to conv5.
STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))
# The output of a block is so much wider than its 3×3 convolution.
EXPANSION = 4
_norm = partial(BatchNorm, epsilon=1.001e-5)
_linear = partial(Conv, activation="linear")

# In %, as https://keras.io/api/applications gives it.
KERAS_TOP_1 = 74.9
_release = partial(
    Release, "resnet50", preprocessing="caffe", licence=KERAS_LICENCE, label="ResNet50", top_1=KERAS_TOP_1
)
_download = partial(keras_download, "resnet50", folder="resnet")
RELEASES = (
    _release(
        include_classifier=False,
        sources=(_download(top=False, md5="4d473c1dd8becc155b73f8504c6f6626", size=94_765_736),),
    ),
    _release(
        include_classifier=True,
        sources=(_download(top=True, md5="2cb95161c43110f7111970584f804107", size=102_967_424),),
    ),
)


def resnet50() -> Backbone:
    """The network; stages as in the paper, but with the first pool in conv1, whose last row it is."""
    rows: list[Row] = [
        ZeroPad("conv1_pad", ((3, 3), (3, 3)), "conv1"),
        _linear("conv1_conv", STEM_FEATURES, 7, strides=2, stage="conv1"),
        _norm("conv1_bn", stage="conv1"),
        Activate("conv1_relu", stage="conv1"),
        ZeroPad("pool1_pad", ((1, 1), (1, 1)), "conv1"),
        MaxPool("pool1_pool", 3, "conv1", strides=2),
    ]
    for number, (features, blocks) in enumerate(STAGES, start=2):
        for block in range(1, blocks + 1):
            strides = 2 if block == 1 and number > 2 else 1
            rows += _residual(f"conv{number}_block{block}", f"conv{number}", features, strides, projected=block == 1)
    classifier = (GlobalAveragePool("avg_pool"), Dense("predictions", 1000))
    return Backbone(
        tuple(rows), releases=RELEASES, classifier=classifier, preprocessing="caffe", fine_tune_from="conv5"
    )


def _residual(name: str, stage: str, features: int, strides: int, *, projected: bool) -> tuple[Row, ...]:
    """1×1, 3×3 and 1×1 beside the identity, or beside a 1×1 projection; their sum is rectified."""
    wide = EXPANSION * features
    shortcut = (_linear(f"{name}_0_conv", wide, 1, strides=strides), _norm(f"{name}_0_bn")) if projected else ()
    branch = (
        _linear(f"{name}_1_conv", features, 1, strides=strides),
        _norm(f"{name}_1_bn"),
        Activate(f"{name}_1_relu"),
        _linear(f"{name}_2_conv", features, 3, "same"),
        _norm(f"{name}_2_bn"),
        Activate(f"{name}_2_relu"),
        _linear(f"{name}_3_conv", wide, 1),
        _norm(f"{name}_3_bn"),
    )
    return (
        Block(name, (shortcut, branch), Merge(f"{name}_add", "add"), stage),
        Activate(f"{name}_out", stage=stage),
    )


RESNET50 = resnet50()

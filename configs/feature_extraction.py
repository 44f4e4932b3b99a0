"""A new head on a frozen ImageNet VGG16: the classic feature extraction on cats and dogs.

    python launch.py --config=configs/feature_extraction.py:edition=2 --config.dataset.root=cats_vs_dogs_small
    python launch.py --config=configs/feature_extraction.py:edition=1 --config.dataset.root=cats_vs_dogs_small
    python launch.py --config=configs/feature_extraction.py:edition=2,augment=True,bank=4 \
        --config.dataset.root=cats_vs_dogs_small

Reproduces chapter 5.3 of Chollet's "Deep Learning with Python" (2017; edition=1) and chapter 8.3 of its second edition
(2021; edition=2). Published: edition 1 validation 0.90, edition 2 validation about 0.97 (test 0.975 with augmentation).
With `augment=True` every epoch sees fresh variants, as in the books; `bank=K` keeps K variants of each image, so that
the frozen layers are computed K times instead of once per epoch.
"""

from vision_transfer.config import Config, default_config, stage, with_stages
from vision_transfer.recipe import parse_recipe


def get_config(argument: str | None = None) -> Config:
    """`edition` is 1 or 2; `strength` (mild or strong) is that of edition 1's augmentation."""
    recipe = parse_recipe(argument, edition=2, augment=False, bank=0, strength="mild")
    config = default_config()
    config.name = f"feature_extraction_edition{recipe.edition}{'_augmented' if recipe.augment else ''}"
    config.augment.bank = recipe.bank
    if recipe.edition == 1:
        return first_edition(config, recipe.augment, recipe.strength)
    return second_edition(config, recipe.augment)


def first_edition(config: Config, augment: bool, strength: str) -> Config:
    """150 pixels, 1/255, dense 256 with ReLU, RMSprop 2e-5, the last of 30 epochs."""
    config.dataset.image_size = 150
    config.dataset.resampling = "nearest"
    config.model.preprocessing = "rescale"
    config.model.hidden = (256,)
    config.model.activation = "relu"
    config.model.dropout = 0.0 if augment else 0.5
    config.batch_size = 20
    config.evaluate = "last"
    if augment:
        mild = strength == "mild"
        config.augment.preset = "image_data_generator"
        config.augment.flip = "horizontal"
        config.augment.rotation = 20.0 if mild else 40.0
        config.augment.height_shift = 0.1 if mild else 0.2
        config.augment.width_shift = 0.1 if mild else 0.2
        config.augment.shear = 0.1 if mild else 0.2
        config.augment.zoom = 0.1 if mild else 0.2
    return with_stages(config, head=stage(freeze="all", epochs=30, optimizer={"name": "rmsprop", "lr": 2e-5}))


def second_edition(config: Config, augment: bool) -> Config:
    """180 pixels, caffe input, dense 256 without activation, dropout, RMSprop 1e-3, best by validation loss."""
    config.dataset.image_size = 180
    config.model.preprocessing = "caffe"
    config.model.hidden = (256,)
    config.model.dropout = 0.5
    config.batch_size = 32
    if augment:
        config.augment.preset = "keras_layers"
        config.augment.flip = "horizontal"
        config.augment.rotation = 0.1
        config.augment.zoom = 0.2
    epochs = 50 if augment else 20
    return with_stages(config, head=stage(freeze="all", epochs=epochs, optimizer={"name": "rmsprop", "lr": 1e-3}))

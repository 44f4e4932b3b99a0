"""The textbooks' cats and dogs recipes: every published value, written down again independently of the code."""

from pathlib import Path

import pytest

from vision_transfer import freezing
from vision_transfer.config import checked, flatten
from vision_transfer.config.files import load_config
from vision_transfer.data.batches import batches_per_pass
from vision_transfer.errors import UserError
from vision_transfer.models.network import all_parameter_shapes
from vision_transfer.runs.build import DataFacts, build_network, resolve_stages

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
TRAINING_IMAGES = 2_000

NO_AUGMENTATION = {"augment.preset": "none"}
STRONG = {
    "augment.preset": "image_data_generator",
    "augment.flip": "horizontal",
    "augment.rotation": 40.0,
    "augment.height_shift": 0.2,
    "augment.width_shift": 0.2,
    "augment.shear": 0.2,
    "augment.zoom": 0.2,
    "augment.fill": None,  # default of the generator: nearest
    "augment.bank": 0,
}
MILD = STRONG | {
    "augment.rotation": 20.0,
    "augment.height_shift": 0.1,
    "augment.width_shift": 0.1,
    "augment.shear": 0.1,
    "augment.zoom": 0.1,
}
LAYERS = {
    "augment.preset": "keras_layers",
    "augment.flip": "horizontal",
    "augment.rotation": 0.1,
    "augment.height_shift": 0.0,
    "augment.width_shift": 0.0,
    "augment.shear": 0.0,
    "augment.zoom": 0.2,
    "augment.fill": None,  # default of the layers: reflect
    "augment.bank": 0,
}
CONVNET_150 = {
    "dataset.image_size": 150,
    "dataset.resampling": "nearest",
    "model.backbone": "convnet_150",
    "model.weights": "random",
    "model.preprocessing": "rescale",
    "model.pooling": "flatten",
    "model.hidden": [512],
    "model.activation": "relu",
    "evaluate": "last",
}
CONVNET_180 = {
    "dataset.image_size": 180,
    "dataset.resampling": "bilinear",
    "model.backbone": "convnet_180",
    "model.weights": "random",
    "model.preprocessing": "rescale",
    "model.pooling": "flatten",
    "model.hidden": [],
    "batch_size": 32,
    "evaluate": "best",
}
VGG16_150 = {
    "dataset.image_size": 150,
    "dataset.resampling": "nearest",
    "model.backbone": "vgg16",
    "model.weights": "imagenet",
    "model.preprocessing": "rescale",
    "model.pooling": "flatten",
    "model.hidden": [256],
    "model.activation": "relu",
    "batch_size": 20,
    "evaluate": "last",
}
VGG16_180 = {
    "dataset.image_size": 180,
    "dataset.resampling": "bilinear",
    "model.backbone": "vgg16",
    "model.weights": "imagenet",
    "model.preprocessing": "caffe",
    "model.pooling": "flatten",
    "model.hidden": [256],
    "model.activation": "linear",
    "model.dropout": 0.5,
    "model.dropout_place": "before_output",
    "batch_size": 32,
    "evaluate": "best",
}
HEAD_1, HEAD_2 = ("head", "all", "rmsprop", 2e-5, 30), ("head", "all", "rmsprop", 1e-3, 50)
ALL_OF_150, DENSE_HEAD_150, BLOCK5 = 16_812_353, 2_097_665, 7_079_424

# recipe: values; (name, freeze, optimizer, learning rate, epochs) of each stage; steps per epoch; trainable parameters
# of each stage
RECIPES = {
    "from_scratch.py:edition=1": (
        CONVNET_150 | NO_AUGMENTATION | {"model.dropout": 0.0, "batch_size": 20},
        [("train", "none", "rmsprop", 1e-4, 30)],
        100,
        [3_453_121],
    ),
    "from_scratch.py:edition=1,augment=True": (
        CONVNET_150 | STRONG | {"model.dropout": 0.5, "model.dropout_place": "before_hidden", "batch_size": 32},
        [("train", "none", "rmsprop", 1e-4, 100)],
        100,
        [3_453_121],
    ),
    "from_scratch.py:edition=2": (
        CONVNET_180 | NO_AUGMENTATION | {"model.dropout": 0.0},
        [("train", "none", "rmsprop", 1e-3, 30)],
        63,
        [991_041],
    ),
    "from_scratch.py:edition=2,augment=True": (
        CONVNET_180 | LAYERS | {"model.dropout": 0.5, "model.dropout_place": "before_output"},
        [("train", "none", "rmsprop", 1e-3, 100)],
        63,
        [991_041],
    ),
    "feature_extraction.py:edition=1": (
        VGG16_150 | NO_AUGMENTATION | {"model.dropout": 0.5, "model.dropout_place": "before_output"},
        [HEAD_1],
        100,
        [DENSE_HEAD_150],
    ),
    "feature_extraction.py:edition=1,augment=True": (
        VGG16_150 | MILD | {"model.dropout": 0.0},
        [HEAD_1],
        100,
        [DENSE_HEAD_150],
    ),
    "feature_extraction.py:edition=1,augment=True,strength=strong": (
        VGG16_150 | STRONG | {"model.dropout": 0.0},
        [HEAD_1],
        100,
        [DENSE_HEAD_150],
    ),
    "feature_extraction.py:edition=2": (
        VGG16_180 | NO_AUGMENTATION,
        [("head", "all", "rmsprop", 1e-3, 20)],
        63,
        [12_800 * 256 + 256 + 257],
    ),
    "feature_extraction.py:edition=2,augment=True": (
        VGG16_180 | LAYERS,
        [HEAD_2],
        63,
        [12_800 * 256 + 256 + 257],
    ),
    "feature_extraction.py:edition=2,augment=True,bank=4": (
        VGG16_180 | LAYERS | {"augment.bank": 4},
        [HEAD_2],
        63,
        [12_800 * 256 + 256 + 257],
    ),
    "finetune.py:edition=1": (
        VGG16_150 | MILD | {"model.dropout": 0.0},
        [HEAD_1, ("block5", "below:block5_conv1", "rmsprop", 1e-5, 100)],
        100,
        [DENSE_HEAD_150, DENSE_HEAD_150 + BLOCK5],
    ),
    "finetune.py:edition=1,mask=block5_conv1_only": (
        VGG16_150 | MILD | {"model.dropout": 0.0},
        [HEAD_1, ("block5", "only:block5_conv1", "rmsprop", 1e-5, 100)],
        100,
        [DENSE_HEAD_150, DENSE_HEAD_150 + 2_359_808],
    ),
    "finetune.py:edition=1,joint=True": (
        VGG16_150 | STRONG | {"model.dropout": 0.0, "init_from": None},
        [("block5", "below:block5_conv1", "rmsprop", 1e-5, 100)],
        100,
        [DENSE_HEAD_150 + BLOCK5],
    ),
    "finetune.py:edition=1,init_from=runs/a b": (
        VGG16_150 | MILD | {"model.dropout": 0.0, "init_from": "runs/a b", "init_from_layers": "auto"},
        [("block5", "below:block5_conv1", "rmsprop", 1e-5, 100)],
        100,
        [DENSE_HEAD_150 + BLOCK5],
    ),
    "finetune.py:edition=2": (
        VGG16_180 | LAYERS,
        [HEAD_2, ("block5", "last:4", "rmsprop", 1e-5, 30)],
        63,
        [12_800 * 256 + 256 + 257, 12_800 * 256 + 256 + 257 + BLOCK5],
    ),
    "finetune.py:edition=2,init_from=runs/b,bank=8": (
        VGG16_180 | LAYERS | {"init_from": "runs/b", "augment.bank": 8},
        [("block5", "last:4", "rmsprop", 1e-5, 30)],
        63,
        [12_800 * 256 + 256 + 257 + BLOCK5],
    ),
}
# Fields that no textbook's optimizer, loss or stage uses, at their defaults.
NOT_IN_TEXTBOOKS = {
    "optimizer.lr_schedule": "constant",
    "optimizer.warmup_steps": 0,
    "optimizer.momentum": 0.0,
    "optimizer.weight_decay": 0.0,
    "optimizer.clip_norm": None,
    "optimizer.ema": 0.0,
    "label_smoothing": 0.0,
    "l1": 0.0,
    "l2": 0.0,
    "patience": None,
    "monitor": "validation_loss",
}


def recipe_of(argument):
    return checked(load_config(f"{CONFIGS}/{argument}"))


@pytest.mark.parametrize("argument", RECIPES)
def test_values_are_the_published_ones(argument):
    values, stages, steps, trainable = RECIPES[argument]
    config = recipe_of(argument)
    flat = flatten(config)
    assert {path: flat[path] for path in values} == values
    assert {flat[path] for path in ("augment.brightness", "augment.contrast", "augment.saturation")} == {0.0}
    found = [
        (name, part.freeze, part.optimizer.name, part.optimizer.lr, part.epochs)
        for name, part in ((name, config.stages[name]) for name in config.schedule)
    ]
    assert found == stages
    for name in config.schedule:
        assert {path: flat[f"stages.{name}.{path}"] for path in NOT_IN_TEXTBOOKS} == NOT_IN_TEXTBOOKS
    side = config.dataset.image_size
    network = build_network(config, DataFacts(2, (side, side, 3)))
    resolved = resolve_stages(config, network)
    shapes = all_parameter_shapes(network)
    assert [freezing.counts(shapes, part.mask).trainable for part in resolved] == trainable
    one_pass = batches_per_pass(TRAINING_IMAGES, config.batch_size)
    assert {part.settings.steps_per_epoch or one_pass for part in resolved} == {steps}


@pytest.mark.parametrize("edition", [1, 2])
def test_the_second_stage_starts_from_the_last_epoch_of_the_first(edition):
    assert recipe_of(f"finetune.py:edition={edition}").stages["block5"].start_from == "last"


@pytest.mark.parametrize("edition", [1, 2])
def test_fine_tuning_continues_from_the_augmented_feature_extraction(edition):
    """Stage `head` and everything around it equal those of the run that `init_from` would name."""
    both, first = (
        flatten(recipe_of(recipe))
        for recipe in (f"finetune.py:edition={edition}", f"feature_extraction.py:edition={edition},augment=True")
    )
    differ = {path for path in first if both[path] != first[path]}
    assert differ == {"name", "schedule"}


def test_vgg16_at_150_pixels_has_the_published_size():
    config = recipe_of("feature_extraction.py:edition=1")
    network = build_network(config, DataFacts(2, (150, 150, 3)))
    counts = freezing.counts(all_parameter_shapes(network), freezing.resolve("all", network))
    assert (counts.total, counts.trainable_tensors, counts.frozen_tensors) == (ALL_OF_150, 4, 26)


@pytest.mark.parametrize(
    ("argument", "named"),
    [
        ("from_scratch.py:edition=3", "edition: got 3; allowed are 1, 2"),
        ("feature_extraction.py:strength=weak,augment,edition=1", "strength: got 'weak'; allowed are mild, strong"),
        ("feature_extraction.py:bank=4", "bank has no effect here; it needs augment=True"),
        ("feature_extraction.py:augment,strength=strong", "strength has no effect here; it needs edition=1"),
        ("finetune.py:joint", "joint has no effect here; it needs edition=1"),
        ("finetune.py:edition=2,joint", "joint has no effect here; it needs edition=1"),
        ("finetune.py:edition=1,joint,init_from=runs/a", "init_from has no effect here"),
        ("finetune.py:edition=1,mask=block5_conv2", "mask: got 'block5_conv2'; allowed are block5"),
        ("finetune.py:edition=1,strength=weak", "strength: got 'weak'"),
    ],
)
def test_a_key_without_effect_is_refused(argument, named):
    with pytest.raises(UserError, match=named):
        recipe_of(argument)

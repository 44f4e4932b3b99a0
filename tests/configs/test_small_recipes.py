"""The configs of the classic experiments: validity, published values, and what each recipe promises."""

from pathlib import Path

import pytest

from vision_transfer import freezing
from vision_transfer.config import checked
from vision_transfer.config.files import load_config
from vision_transfer.data.batches import steps_of_epoch
from vision_transfer.errors import UserError
from vision_transfer.models.network import all_parameter_shapes
from vision_transfer.runs.build import DataFacts, build_network, resolve_stages

CONFIGS = Path(__file__).resolve().parents[2] / "configs"

# From the course notebook (VGG16 without its last five layers, Adam 1e-4, 18 and 3 steps) and from chapters 2.1 and 5.1
# of "Deep Learning with Python"; numbers of parameters as in Keras's summaries: all, and trainable.
PUBLISHED = [
    (
        "sign_language",
        None,
        10,
        {"dataset.image_size": 224, "model.preprocessing": "raw", "batch_size": 10, "eval_batch_size": 30},
        {"epochs": 20, "steps_per_epoch": 18, "validation_steps": 3, "optimizer.name": "adam", "optimizer.lr": 1e-4},
        (14_719_818, 7_084_554),
    ),
    (
        "mnist",
        "model=convnet",
        10,
        {"batch_size": 64, "model.preprocessing": "rescale", "dataset.validation_fraction": 0.0},
        {"epochs": 5, "optimizer.name": "rmsprop", "optimizer.lr": 1e-3},
        (93_322, 93_322),
    ),
    (
        "mnist",
        "model=dense",
        10,
        {"batch_size": 64, "model.preprocessing": "rescale", "dataset.validation_fraction": 0.0},
        {"epochs": 5, "optimizer.name": "rmsprop", "optimizer.lr": 1e-3},
        (28 * 28 * 512 + 512 + 512 * 10 + 10,) * 2,
    ),
]
RECIPES = [
    ("sign_language", None),
    ("sign_language", "recipe=own"),
    ("mnist", "model=convnet"),
    ("mnist", "model=dense"),
    ("fashion_mnist", None),
    ("cifar10", None),
    ("mnist_to_fashion", None),
    ("lower_layers", None),
    *[("lower_layers", f"layer=block{block}_pool,head=dense") for block in (2, 3, 4)],
    *[("lower_layers", f"layer=block3_pool,head={head}") for head in ("logistic", "svm")],
    *[("lower_layers", f"layer={layer},head=logistic") for layer in ("last", "all", "selected")],
]
IMAGE_SIZES = {"cifar10": 32}


def load(name, argument):
    return checked(load_config(f"{CONFIGS / name}.py" + (f":{argument}" if argument else "")))


def value(config, path):
    for part in path.split("."):
        config = getattr(config, part)
    return config


def network_of(config, name, classes=10):
    size = config.dataset.image_size or IMAGE_SIZES.get(name, 28)
    return build_network(config, DataFacts(classes, (size, size, config.dataset.channels)))


@pytest.mark.parametrize(("name", "argument"), RECIPES)
def test_every_recipe_is_valid_and_its_stages_fit_its_network(name, argument):
    config = load(name, argument)
    network = network_of(config, name)
    for stage in config.stages:
        freezing.resolve(config.stages[stage].freeze, network)


@pytest.mark.parametrize(("name", "argument", "classes", "values", "stage_values", "parameters"), PUBLISHED)
def test_a_published_recipe_has_the_published_values(name, argument, classes, values, stage_values, parameters):
    config = load(name, argument)
    (stage,) = config.schedule
    assert {path: value(config, path) for path in values} == values
    assert {path: value(config.stages[stage], path) for path in stage_values} == stage_values
    assert config.evaluate == "last"
    network = network_of(config, name, classes)
    (resolved,) = resolve_stages(config, network)
    counts = freezing.counts(all_parameter_shapes(network), resolved.mask)
    assert (counts.total, counts.trainable) == parameters


@pytest.mark.parametrize("block", [2, 3, 4])
def test_the_backbone_ends_at_the_chosen_lower_layer(block):
    config = load("lower_layers", f"layer=block{block}_pool,head=svm")
    network = network_of(config, "lower_layers")
    assert network.backbone[-2].name == f"block{block}_pool"
    assert [layer.name for layer in network.head] == ["head_logits"]
    # VGG16's blocks have 64, 128, 256, 512 and 512 features.
    assert all_parameter_shapes(network)["head_logits"]["kernel"] == ({2: 128, 3: 256, 4: 512}[block], 10)


def test_a_head_over_all_stages_has_their_features_side_by_side():
    network = network_of(load("lower_layers", "layer=all"), "lower_layers")
    assert network.shape_after(network.backbone[-1].name) == (64 + 128 + 256 + 512 + 512,)


@pytest.mark.parametrize("argument", ["head=forest", "layer=block3_pool,head=random", "layer=selected"])
def test_an_unknown_head_is_refused(argument):
    with pytest.raises(UserError, match="logistic, svm"):
        load("lower_layers", argument)


def test_an_unknown_recipe_is_refused():
    with pytest.raises(UserError, match="classic, own"):
        load("sign_language", "recipe=theirs")


def test_the_recommended_recipe_trains_a_small_head_and_lets_validation_choose():
    config = load("finetune", None)
    assert config.evaluate == "best_stage" and config.augment.preset == "none"
    network = build_network(config, DataFacts(2, (224, 224, 3)))
    counts = freezing.counts(all_parameter_shapes(network), resolve_stages(config, network)[0].mask)
    assert counts.trainable == 512 * 256 + 256 + 256 + 1


@pytest.mark.parametrize(("images", "steps"), [(100, 20), (640, 20), (641, 21), (2000, 63)])
def test_the_recommended_head_takes_20_steps_in_an_epoch_where_a_pass_has_fewer(images, steps):
    config = load("recommended", None)
    assert steps_of_epoch(config.stages["head"], images, config.batch_size) == steps

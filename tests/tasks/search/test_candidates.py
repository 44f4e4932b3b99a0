"""Candidates of a search: what is pooled, which heads there are, and the runs that train them."""

from dataclasses import fields
from typing import get_args

import pytest

from vision_transfer.config import checked
from vision_transfer.config.files import load_config
from vision_transfer.config.task_schema import SearchConfig
from vision_transfer.data.augmentation.augment import augmentation_of
from vision_transfer.models.backbones.registry import backbone_rows
from vision_transfer.models.layers import GlobalAveragePool, PoolLayers
from vision_transfer.runs.build import DataFacts, build_network
from vision_transfer.tasks.search.candidates import (
    AVERAGE,
    POOLING,
    Base,
    Candidate,
    Tuning,
    bases,
    heads_on,
    run_config,
    with_base,
    with_usable_heads,
)

ENDS = backbone_rows("mnist_convnet", pooled_layers=())[-1].layers


@pytest.mark.parametrize(
    ("pooling", "last"),
    [
        (AVERAGE, GlobalAveragePool("global_average_pooling2d")),
        ("quarters", PoolLayers("pooled_layers", ENDS[-1:], 2)),
        ("layers", PoolLayers("pooled_layers", ENDS)),
        ("layers_in_quarters", PoolLayers("pooled_layers", ENDS, 2)),
    ],
)
def test_each_pooling_is_a_network_of_its_own(pooling, last):
    config = load_config("search")
    config.model.weights = "random"
    config.model.pooling_grid = 3
    config.search.backbones, config.search.image_sizes = ("mnist_convnet",), (28,)
    config.search.pooling = (pooling,)
    (base,) = bases(checked(config))
    assert base == Base("mnist_convnet", 28, pooling)
    assert build_network(with_base(checked(config), base), DataFacts(10, (28, 28, 3))).backbone[-1] == last


def test_all_stages_get_the_classic_heads_only_where_there_are_any():
    def heads(pooling, asked):
        config = load_config("search")
        config.search.heads = asked
        return [one.head for one in heads_on(checked(config), Base("vgg16", 28, pooling))]

    assert heads(AVERAGE, ("linear", "svm")) == heads("quarters", ("linear", "svm")) == ["linear", "svm"]
    assert heads("layers_in_quarters", ("linear", "svm")) == heads("layers", ("svm",)) == ["svm"]
    assert heads("layers", ("linear",)) == ["linear"]


@pytest.mark.parametrize(("classes", "kept"), [(2, False), (3, True), (40, True), (41, False)])
def test_pairs_of_classes_are_tried_where_they_are_several_and_few(classes, kept):
    config = load_config("search")
    config.search.heads = ("linear", "pairwise")
    heads = with_usable_heads(checked(config), classes).search.heads
    assert heads == (("linear", "pairwise") if kept else ("linear",))
    config.search.heads = ("pairwise",)
    assert with_usable_heads(checked(config), classes).search.heads == ("pairwise",)


@pytest.mark.parametrize(
    ("freeze", "wanted", "expected"),
    [("none", True, True), ("none", False, False), ("below:block5_conv1", True, False)],
)
def test_only_ways_without_a_frozen_part_see_fresh_variants_of_images(freeze, wanted, expected):
    config = load_config("search")
    config.stages.tune.augment = wanted
    tuning = Tuning(freeze, 1e-4, 3)
    run = run_config(checked(config), Candidate(Base("vgg16", 128), tuning=tuning), 100, 50)
    assert [run.stages[name].augment for name in run.schedule] == [False, expected]
    assert augmentation_of(run.augment) is not None
    config.augment.bank = 2
    run = run_config(checked(config), Candidate(Base("vgg16", 128), tuning=tuning), 100, 50)
    assert run.stages["tune"].augment == wanted


def test_a_way_is_judged_by_the_network_that_it_fine_tuned():
    config = load_config("search")
    config.stages.tune.skip_from = 0.98
    config = checked(config)
    ways = Candidate(Base("vgg16", 128), tuning=Tuning("none", 1e-4, 3)), Candidate(Base("vgg16", 128))
    runs = [run_config(config, way, 100, 50) for way in ways]
    assert [run.evaluate for run in runs] == ["best", "best"]
    assert runs[0].stages["tune"].skip_from is None


def test_a_head_that_is_listed_twice_is_one():
    config = load_config("search")
    config.search.heads = ("svm", "svm")
    assert [one.head for one in heads_on(checked(config), Base("vgg16", 28))] == ["svm"]


def test_every_pooling_has_words_of_its_own():
    (field,) = (field for field in fields(SearchConfig) if field.name == "pooling")
    assert len({Base("vgg16", 28, pooling).name for pooling in POOLING}) == len(POOLING)
    assert set(POOLING) == set(get_args(get_args(field.type)[0]))

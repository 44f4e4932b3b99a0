"""From a grid to runs: the stages of each, and equal runs once."""

from dataclasses import replace

import pytest

from vision_transfer.config import validate
from vision_transfer.errors import UserError
from vision_transfer.runs.build import DataFacts
from vision_transfer.tasks.ablation.estimate import estimate
from vision_transfer.tasks.ablation.grid import ablation, networks_of
from vision_transfer.tasks.ablation.masks import expanded, mask_facts, masks_table

IMAGES = 2000


def stages_of(run):
    return [(name, run.config.stages[name].freeze) for name in run.config.schedule]


def test_a_run_for_each_mask_and_seed(grid, networks):
    study = ablation(grid(), networks, IMAGES)
    assert [(run.labels["mask"], run.labels["seed"]) for run in study.runs] == [
        (mask, seed) for seed in (0, 1) for mask in ("all", "below:block5_conv2", "below:block4_conv3")
    ]
    assert stages_of(study.runs[0]) == [("head", "all")]
    assert stages_of(study.runs[1]) == [("head", "all"), ("tune", "below:block5_conv2")]
    for run in study.runs:
        validate(run.config)


def test_masks_of_a_seed_share_their_first_stage_and_seeds_do_not(grid, networks):
    runs = ablation(grid(sizes=(100, 0)), networks, IMAGES).runs
    assert len(runs) == len({run.key for run in runs}) == 12
    assert len({run.first_stage_key for run in runs}) == 4


def test_the_head_alone_is_one_run_for_all_rates_and_schedules(grid, networks):
    config = grid(seeds=(0,), learning_rates=(1e-5, 1e-4), schedules=("head_first", "together"))
    runs = ablation(config, networks, IMAGES).runs
    assert sum(run.labels["mask"] == "all" for run in runs) == 1
    assert len(runs) == 1 + 2 * 2 * 2
    assert {run.config.stages["tune"].optimizer.lr for run in runs if "tune" in run.config.schedule} == {1e-5, 1e-4}


def test_together_has_no_head_stage_and_gradual_goes_down_layer_by_layer(grid, networks):
    config = grid(seeds=(0,), masks=("below:block4_conv3",), schedules=("together", "gradual"))
    together, gradual = ablation(config, networks, IMAGES).runs
    assert stages_of(together) == [("tune", "below:block4_conv3")]
    assert stages_of(gradual) == [
        ("head", "all"),
        ("unfreeze_block5_conv3", "only:block5_conv3"),
        ("unfreeze_block5_conv2", "only:block5_conv3,block5_conv2"),
        ("unfreeze_block5_conv1", "only:block5_conv3,block5_conv2,block5_conv1"),
        ("tune", "below:block4_conv3"),
    ]
    epochs = [gradual.config.stages[name].epochs for name in gradual.config.schedule]
    assert epochs == [3, 1, 1, 1, 2]
    assert gradual.config.stages["tune"].start_from == "last"


def test_a_mask_trains_also_where_the_recipe_would_stop_at_the_head(grid, networks):
    config = grid(seeds=(0,), masks=("none",))
    skipping = replace(config.stages["tune"], skip_from=0.98)
    (run,) = ablation(replace(config, stages={**config.stages, "tune": skipping}), networks, IMAGES).runs
    assert run.config.stages["tune"].skip_from is None


def test_multipliers_become_the_stage_s_rules(grid, networks):
    config = grid(seeds=(0,), masks=("below:block5_conv2",), multipliers=("none", "block5_.*=0.1; layer_decay=0.5"))
    plain, scaled = ablation(config, networks, IMAGES).runs
    assert plain.config.stages["tune"].optimizer.lr_multipliers == ()
    assert scaled.config.stages["tune"].optimizer.lr_multipliers == ("block5_.*=0.1", "layer_decay=0.5")
    assert scaled.labels["multipliers"] != plain.labels["multipliers"]


def test_every_word_fits_every_backbone(grid, two_networks):
    names = tuple(two_networks)
    config = grid(seeds=(0,), masks=("all", "last_stage", "every_block", "every_cut", "none"), backbones=names)
    found = {name: [] for name in names}
    for run in ablation(config, two_networks, IMAGES).runs:
        assert run.labels["backbone"] == run.config.model.backbone
        found[run.config.model.backbone].append(run.labels["mask"])
    assert [specs[1] for specs in found.values()] == ["below:block5", "below:block6"]
    assert [len(specs) for specs in found.values()] == [1 + 1 + 5 + 12 + 1, 1 + 1 + 9 + 97 + 1]


def test_a_network_without_convolutions_has_no_last_stage(vgg):
    assert expanded(("last_stage",), vgg, "dense") == ["none"]


def test_fields_become_axes_and_values_that_change_nothing_are_one_run(grid, two_networks):
    config = grid(
        seeds=(0,),
        masks=("all", "last_stage"),
        backbones=tuple(two_networks),
        batch_sizes=(4, 32),
        batch_norm_statistics=("pretrained", "batch"),
    )
    runs = ablation(config, two_networks, IMAGES).runs
    labels = [tuple(run.labels[name] for name in ("backbone", "mask", "batch size", "statistics")) for run in runs]
    assert labels == [
        *[("vgg16", mask, size, "any") for size in (4, 32) for mask in ("all", "below:block5")],
        *[
            ("efficientnet_lite0", mask, size, statistics)
            for size in (4, 32)
            for mask, statistics in (("all", "any"), ("below:block6", "pretrained"), ("below:block6", "batch"))
        ],
    ]
    for run in runs:
        assert run.config.batch_size == run.labels["batch size"]
        value = run.labels["statistics"]
        assert run.config.model.batch_norm_statistics == ("auto" if value == "any" else value)


def test_heads_on_the_last_map_and_on_all_stages_are_rows(grid, lite):
    config = grid(
        seeds=(0,), masks=("all", "last_stage"), backbones=("efficientnet_lite0",), pooling=("average", "layers")
    )
    networks = networks_of(config, DataFacts(10, lite.input_shape))
    runs = ablation(config, networks, IMAGES).runs
    assert [(run.labels["pooling"], run.labels["mask"]) for run in runs] == [
        (pooling, mask) for pooling in ("average", "layers") for mask in ("all", "below:block6")
    ]
    assert [run.config.model.pooling for run in runs] == ["average", "average", "layers", "layers"]
    cost = estimate(runs, networks, {"train": IMAGES, "validation": 100, "test": 100})
    # The averages of all stages end where the network ends; training block 6 starts before the first of them.
    assert cost.prefixes["efficientnet_lite0 with all stages"] == ("pooled_layers",)
    assert len(cost.prefixes["efficientnet_lite0"]) == 2


def test_a_grid_of_one_network_has_the_labels_and_the_digest_that_it_had(grid, networks):
    one = ablation(grid(seeds=(0,)), networks, IMAGES)
    listed = grid(seeds=(0,), backbones=("vgg16",), batch_sizes=(32,), batch_norm_statistics=("auto",))
    assert set(one.runs[0].labels) == {"mask", "training images", "seed"}
    assert ablation(listed, networks, IMAGES).digest == one.digest


def test_words_that_expand_to_several_masks(vgg):
    cuts = expanded(("every_cut",), vgg, "vgg16")
    assert (cuts[0], cuts[1], cuts[-1], len(cuts)) == ("all", "below:block5_conv3", "none", 14)
    assert [mask_facts(spec, vgg).depth for spec in cuts] == list(range(14))
    blocks = expanded(("every_block", "all"), vgg, "vgg16")
    assert [mask_facts(spec, vgg).block for spec in blocks] == ["block5", "block4", "block3", "block2", "block1", None]
    assert mask_facts("only:block3_conv1", vgg).depth is mask_facts("only:block3_conv1", vgg).block is None


@pytest.mark.parametrize(
    ("axes", "part"),
    [
        ({"masks": ("below:block9_conv1",)}, "config.ablation.masks"),
        ({"masks": ()}, "config.ablation.masks: is empty"),
        ({"schedules": ("downwards",)}, "config.ablation.schedules"),
        ({"masks": ("below:block9_conv1",)}, "backbone vgg16; the words all, none, last_stage"),
        ({"sizes": (5000,)}, "2,000 training images"),
        ({"masks": ("regex:block5_.*/bias|.*dense.*",), "schedules": ("gradual",)}, "gradual"),
    ],
)
def test_an_invalid_grid_is_refused_with_the_name_of_the_field(grid, networks, axes, part):
    with pytest.raises(UserError, match=part):
        ablation(grid(**axes), networks, IMAGES)


def test_the_summary_has_a_row_per_mask_with_its_parameters_and_its_first_layer(vgg):
    columns = [list(column.cells) for column in masks_table(("all", "every_block"), vgg, "vgg16").columns]
    specs, trainable, frozen, start = columns
    assert specs == expanded(("all", "every_block"), vgg, "vgg16")
    assert start == ["block5_pool", "block4_pool", "block3_pool", "block2_pool", "block1_pool", "the images"]
    # block5 has 7,079,424 parameters in three kernels and three biases
    assert int(trainable[1].split()[0].replace(",", "")) - int(trainable[0].split()[0].replace(",", "")) == 7_079_424
    assert (trainable[1].split()[1], frozen[1].split()[1]) == ("(10)", "(20)")

"""What the grid plans for batch norms, and what the report says about their statistics and about several networks."""

import pytest

from vision_transfer.tasks.ablation.all_runs import work
from vision_transfer.tasks.ablation.estimate import accelerator_flops_per_second, estimate, flops_per_second
from vision_transfer.tasks.ablation.figures import draw_figures, points, series
from vision_transfer.tasks.ablation.grid import ablation
from vision_transfer.tasks.ablation.sweep import SweepFolder, finished_run, write_plan
from vision_transfer.tasks.study.conclusions import conclusions_by_setting
from vision_transfer.tasks.study.tables import grouped

SIZES = {"train": 2000, "validation": 100, "test": 100}


@pytest.fixture
def swept(two_networks, options, launcher, screen):
    """Plans a grid and does its runs by the fake launcher; returns them."""

    def do(config):
        study = ablation(config, {name: two_networks[name] for name in config.ablation.backbones}, 2000)
        folder = SweepFolder(options.workdir)
        write_plan(study, folder, {})
        work(study, folder, options, launcher, screen)
        return [finished_run(run, folder, None) for run in study.runs]

    return do


@pytest.fixture
def finished(grid, swept):
    return swept(
        grid(
            masks=("all", "last_stage", "none"),
            backbones=("efficientnet_lite0",),
            batch_sizes=(4, 32),
            batch_norm_statistics=("pretrained", "batch"),
        )
    )


def test_the_statistics_are_compared_all_else_equal(finished):
    *by_batch, on_statistics = conclusions_by_setting(finished)
    assert [paragraph[0].split(", validation")[0] for paragraph in by_batch] == [
        f"With 2,000 training images in batches of {size}" for size in (4, 32)
    ]
    # Per batch size: the chosen mask, its test, four others, the cheapest, the small test, the method.
    assert {len(paragraph) for paragraph in by_batch} == {9}
    heading, *contrasts, method = on_statistics
    assert heading.startswith("Statistics of batch norms")
    assert [sentence.split(" is ")[0] for sentence in contrasts] == [
        f"{mask}, batches of {size}, 2,000 images: batch" for size in (4, 32) for mask in ("below:block6", "none")
    ]
    assert "correction for 4 comparisons" in method


def test_without_that_axis_nothing_is_said_of_it(grid, swept):
    finished = swept(grid(backbones=("vgg16",), batch_sizes=(4, 32), batch_norm_statistics=("pretrained", "batch")))
    assert len(conclusions_by_setting(finished)) == 2


def test_the_head_alone_begins_the_lines_of_both_statistics(finished, two_networks):
    lines = series(points(grouped(finished), two_networks))
    assert {name: [mask.spec for mask, _ in line] for name, line in lines.items()} == {
        f"batches of {size}, {statistics}, 2,000 images": ["all", "below:block6", "none"]
        for size in (4, 32)
        for statistics in ("pretrained", "batch")
    }


def test_each_of_several_networks_has_its_figures(grid, swept, two_networks, tmp_path):
    finished = swept(grid(masks=("all", "last_stage"), backbones=tuple(two_networks)))
    files = draw_figures(points(grouped(finished), two_networks), tmp_path, "title")
    of_each = ("depth.png", "validation.png", "calibration.png", "cost.png")
    names = ["cost.png", *(f"{backbone}/{name}" for backbone in two_networks for name in of_each)]
    assert [str(file.relative_to(tmp_path)) for file in files] == names


def test_the_estimate_of_two_networks_is_the_sum_of_theirs(grid, two_networks):
    def of(*backbones):
        study = ablation(grid(masks=("all", "last_stage"), backbones=backbones), two_networks, 2000)
        return estimate(study.runs, two_networks, SIZES)

    both, vgg, lite = of("vgg16", "efficientnet_lite0"), of("vgg16"), of("efficientnet_lite0")
    assert both.prefixes == vgg.prefixes | lite.prefixes
    assert both.prefixes["vgg16"] == ("block4_pool", "block5_pool")
    for name in ("stages", "trained", "heads", "flops", "checkpoint_bytes", "feature_bytes"):
        assert getattr(both, name) == getattr(vgg, name) + getattr(lite, name)


def test_products_by_jax_are_timed_to_their_end():
    """On a CPU they are as fast as NumPy's, to an order of magnitude; without waiting for them, much faster."""
    assert 0.1 < accelerator_flops_per_second(1024) / flops_per_second(on_accelerator=True) < 10

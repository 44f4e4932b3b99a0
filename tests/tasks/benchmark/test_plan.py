"""Plans for many chips: each figure by hand, for a chip with round numbers."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vision_transfer.config import checked
from vision_transfer.config.files import load_config
from vision_transfer.errors import UserError
from vision_transfer.tasks.benchmark.cases import depth_cases
from vision_transfer.tasks.benchmark.chips import Chip
from vision_transfer.tasks.benchmark.plan import planned, write_plan

IMAGES, BATCH, SIDE = 1000, 4, 64
# Peaks of 1 TFLOP/s, 1 TB/s to its memory, and 1 GB/s to other chips.
CHIP = Chip({"float32": 1e12, "tf32": 1e12, "bfloat16": 1e12}, 1e12, 1e9, 1e9, 0.0, "made up")
# VGG16's three convolutions of block 5, and the dense layers of two classes behind an average.
BLOCK5 = 3 * (3 * 3 * 512 * 512 + 512)
HEAD = 512 * 256 + 256 + 256 + 1


@pytest.fixture(scope="module")
def steps():
    config = load_config("accelerator")
    config.benchmark.backbones, config.benchmark.batches, config.batch_size = ("vgg16",), (BATCH,), BATCH
    config.benchmark.precisions, config.dataset.image_size = ("float32",), SIDE
    return [case for case in depth_cases(checked(config)) if case.work == "step"]


def test_every_figure_of_a_cached_step(steps):
    (record,) = [
        found
        for found in planned(steps, CHIP, 8, IMAGES)
        if (found["freeze"], found["source"]) == ("below:block5", "features")
    ]
    assert record["gradient_bytes"] == 4 * (BLOCK5 + HEAD)
    assert record["all_reduce_seconds"] == pytest.approx(2 * 7 / 8 * 4 * (BLOCK5 + HEAD) / 1e9)
    whole = record["step_seconds"] + record["all_reduce_seconds"]
    assert record["efficiency"] == pytest.approx(record["step_seconds"] / whole)
    assert record["images_per_second"] == pytest.approx(8 * BATCH / whole)
    assert record["epoch_seconds"] == pytest.approx(IMAGES * whole / (8 * BATCH))
    row = 4 * 4 * 512 * 4
    assert record["cache_bytes"] == IMAGES * row
    assert record["input_bytes_per_second"] == pytest.approx(BATCH * row / whole)
    other = next(found for found in planned(steps, CHIP, 8, IMAGES) if found["freeze"] == "below:block5")
    saved = (other["step_seconds"] - record["step_seconds"]) * IMAGES / (8 * BATCH)
    assert record["pays_after_epochs"] == math.ceil(record["extraction_seconds"] / saved)


def test_a_step_takes_twice_the_longer_of_its_bounds(steps):
    from vision_transfer.tasks.benchmark.costs import total

    for case, record in zip(steps, planned(steps, CHIP, 1, IMAGES), strict=True):
        cost = total(case.costs)
        assert record["step_seconds"] == pytest.approx(2 * max(cost.flops, cost.bytes) / 1e12)
        assert record["all_reduce_seconds"] == 0 and record["efficiency"] == 1


def test_without_links_on_the_data_sheet_nothing_is_said_of_several_chips(steps):
    for record in planned(steps, replace(CHIP, interconnect=0.0), 8, IMAGES):
        assert record["efficiency"] is record["epoch_seconds"] is record["all_reduce_seconds"] is None


@given(chips=st.integers(2, 4096))
def test_more_chips_are_faster_together_and_no_more_efficient(steps, chips):
    for one, more in zip(planned(steps, CHIP, chips, IMAGES), planned(steps, CHIP, 2 * chips, IMAGES), strict=True):
        assert more["efficiency"] <= one["efficiency"]
        assert one["images_per_second"] < more["images_per_second"] <= 2 * one["images_per_second"]


def test_a_plan_needs_a_chip_that_is_known(tmp_path, screen):
    config = load_config("accelerator")
    config.benchmark.plan, config.benchmark.target = IMAGES, "tpu:v9"
    with pytest.raises(UserError, match="a plan needs a chip with a data sheet: cuda:h100, cuda:a100, cuda:l4, tpu:v4"):
        write_plan(checked(config), tmp_path, screen)


def test_a_plan_is_a_page(tmp_path, screen):
    config = load_config("benchmark")
    config.precision, config.dataset.image_size = "bfloat16", SIDE
    config.benchmark.plan, config.benchmark.target = IMAGES, "tpu:v5e"
    write_plan(checked(config), tmp_path / "plan", screen)
    page = (tmp_path / "plan" / "plan.md").read_text(encoding="utf-8")
    assert "1,000 images on tpu:v5e" in page and "| vgg16 | below:block5_conv1 | block4_pool | 64 |" in page

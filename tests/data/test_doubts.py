"""What a run says about its data: images without contrast, small splits, values beyond 8 bits."""

import shutil

import numpy as np
import pytest
from PIL import Image
from statsmodels.stats.proportion import proportion_confint

from vision_transfer.data.doubts import LEAST_CONTRAST, say_too_small, widest_interval, without_contrast
from vision_transfer.errors import UserError


def test_contrast_is_the_span_of_a_channel_over_all_pixels():
    random = np.random.default_rng(0)
    images = np.full((40, 33, 29, 3), 100, np.uint8)
    spans = random.integers(0, 2 * LEAST_CONTRAST, 40)
    for image, span in zip(images, spans, strict=True):
        # a single pixel, mostly one that the first look does not see
        image[random.integers(33), random.integers(29), random.integers(3)] += span
    np.testing.assert_array_equal(without_contrast(images), spans < LEAST_CONTRAST)
    red = np.zeros((1, 8, 8, 3), np.uint8)
    red[..., 0] = 255
    assert without_contrast(red).tolist() == [True], "one colour, whatever its channels"


@pytest.mark.parametrize("examples", [1, 2, 16, 46, 100, 1000])
def test_the_interval_is_wilsons(examples):
    low, high = proportion_confint(round(examples / 2), examples, method="wilson")
    assert widest_interval(examples) == pytest.approx((high - low) / 2)


def test_small_splits():
    labels = np.array([0] * 15 + [1])
    (said,) = say_too_small("validation", ("leaf", "flower"), labels)
    assert said.startswith("16 validation images, 1 of flower: an accuracy measured on them has a 95 % interval of")
    assert "±0.22" in said
    assert say_too_small("test", ("a", "b"), np.arange(400) % 2) == []
    assert "1 of b" in say_too_small("test", ("a", "b"), np.array([0] * 400 + [1]))[0]
    assert "no validation images" in say_too_small("validation", ("a", "b"), np.array([], int))[0]
    # a hundred classes of one image each are no small split
    assert say_too_small("test", tuple(map(str, range(200))), np.arange(200)) == []


@pytest.fixture
def wide_folder(image_folder):
    """Photos of 12 bits in files of 16, as microscopes and thermal cameras write them."""
    random = np.random.default_rng(0)
    for file in image_folder.rglob("*.png"):
        Image.fromarray(random.integers(0, 4096, (20, 16), dtype=np.uint16)).save(file)
    return image_folder


def test_images_whose_values_are_lost_are_refused(load, wide_folder):
    with pytest.raises(UserError, match=r"14 of 14 images have no contrast.*value_range=0,4095 reads all"):
        load(root=wide_folder, image_size=16)
    dataset = load(root=wide_folder, image_size=16, value_range=(0.0, 4095.0))
    with Image.open(wide_folder / dataset.train.files[0]) as image:
        values = np.asarray(image)
    assert not any("contrast" in warning for warning in dataset.warnings)
    whole = load(root=wide_folder, image_size=20, resampling="nearest", value_range=(0.0, 4095.0))
    np.testing.assert_array_equal(whole.train.images[0][:, ::20, 0][:, 0], np.rint(values[:, 0] * (255 / 4095)))
    assert whole.fingerprint == dataset.fingerprint
    other = load(root=wide_folder, image_size=16, value_range=(0.0, 8191.0))
    assert other.fingerprint != dataset.fingerprint


def test_a_few_images_without_contrast_are_named(load, image_folder):
    Image.new("RGB", (20, 16), (3, 3, 3)).save(image_folder / "train/cat/black.png")
    warning, *others = load(root=image_folder, image_size=16).warnings
    assert warning.startswith(
        "1 of 15 images have no contrast: each is of nearly one colour (such as train/cat/black.png)"
    )
    assert [other.split(",")[0] for other in others] == ["4 validation images", "4 test images"]


def test_what_does_not_decode_is_no_example(load, image_folder, unsplit):
    """Not for leaks, hold-outs or near-duplicates, though it starts like an image."""
    broken = b"\x89PNG\r\n\x1a\n and no more"
    for split in ("train", "validation", "test"):
        (image_folder / split / "cat/broken.png").write_bytes(broken)
    dataset = load(root=image_folder, image_size=16)
    assert len(dataset.skipped) == 3
    before = load(root=unsplit, image_size=16, validation_fraction=0.2)
    for number in range(30):
        (unsplit / f"bird/{number} broken.png").write_bytes(broken + bytes([number]))
        (unsplit / f"bird/{number}.html").write_text(f"<html>{number}")
    after = load(root=unsplit, image_size=16, validation_fraction=0.2)
    assert len(after.skipped) == 60
    for split in ("train", "validation", "test"):
        assert getattr(after, split).files == getattr(before, split).files
    shutil.copy(image_folder / "train/cat/cat.0.png", image_folder / "test/cat/same.png")
    with pytest.raises(UserError, match=r"train and test share 1 file\(s\).*such as train/cat/cat.0.png"):
        load(root=image_folder, image_size=16)

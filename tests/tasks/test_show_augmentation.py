"""The figure of an image's variants: they are those of training, and the figure describes them."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from PIL import Image

from vision_transfer.config import checked, default_config, stage, with_stages
from vision_transfer.config.schema import AugmentConfig
from vision_transfer.data.augmentation.augment import augment_batch, augmentation_of
from vision_transfer.data.load import load_dataset
from vision_transfer.errors import UserError
from vision_transfer.tasks.show_augmentation import describe, grid_figure, show_augmentation, variants

SIZE = 24


def config_of(**augment):
    config = default_config()
    config.dataset.name = "embedded"
    config.dataset.image_size = SIZE
    config.augment.update({"preset": "keras_layers", "flip": "horizontal", "rotation": 0.1, **augment})
    return checked(with_stages(config, head=stage()))


@pytest.fixture
def first(tmp_path, screen):
    """The training split, whose first image is drawn without `--images`."""
    return load_dataset(config_of().dataset, cache_dir=tmp_path, screen=screen).train


def said(screen):
    return screen.console.file.getvalue()


def test_a_banks_variants_come_in_turn_and_are_its_own(first):
    config = config_of(bank=2, bank_seed=5)
    augmentation = augmentation_of(config.augment)
    found = variants(np.asarray(first.images[0]), augmentation, config)
    assert found.shape == (9, SIZE, SIZE, 3)
    for number in range(9):
        ids = first.example_ids[:1]
        expected = augment_batch(first.images[:1], ids, jax.random.key(5), number % 2, augmentation)
        np.testing.assert_allclose(found[number], expected[0], atol=1e-3)


def test_fresh_variants_differ_and_are_the_same_again(first):
    config = config_of()
    found, again = (variants(np.asarray(first.images[0]), augmentation_of(config.augment), config) for _ in range(2))
    np.testing.assert_array_equal(found, again)
    assert all(not np.allclose(found[0], other) for other in found[1:])


@pytest.mark.parametrize("channels", [1, 3])
def test_the_figure_names_the_original_and_each_variant(channels):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (SIZE, SIZE, channels), np.uint8)
    varied = rng.uniform(-5, 260, (9, SIZE, SIZE, channels)).astype(np.float32)
    figure = grid_figure("a $x$.jpg", image, varied, augmentation_of(config_of(bank=4).augment))
    assert figure.get_suptitle().startswith(
        "a $x$.jpg, 24×24 pixels\nkeras_layers: flip horizontal, rotation 0.1; fill"
    )
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["original", *(f"variant {number}" for number in (1, 2, 3, 4, 1, 2, 3, 4, 1))]
    np.testing.assert_array_equal(figure.axes[0].get_images()[0].get_array(), image.squeeze())


def test_active_operations_are_described():
    config = config_of(preset="image_data_generator", rotation=40.0, width_shift=0.2, flip="none", brightness=0.3)
    found = describe(augmentation_of(config.augment))
    assert found == "image_data_generator: rotation 40.0, width shift 0.2, brightness 0.3; fill nearest"


def test_an_own_augmentation_is_described_by_its_name():
    assert describe(replace(AugmentConfig(), preset="own.py:shake")) == "own.py:shake"


def test_the_first_training_image_is_drawn(tmp_path, screen, first):
    path = show_augmentation(config_of(), None, tmp_path, tmp_path, screen)
    assert path == tmp_path / "augmentation.png"
    with Image.open(path) as image:
        assert image.format == "PNG"
    assert f"9 variants of {first.files[0]} are in {path}." in said(screen)


def test_a_file_is_drawn(tmp_path, screen, reference_folder):
    cat = reference_folder / "cat_chelsea.jpg"
    path = show_augmentation(config_of(), str(cat), tmp_path / "sub" / "cat.png", tmp_path, screen)
    assert path.is_file()
    assert "9 variants of cat_chelsea.jpg" in said(screen)


@pytest.mark.parametrize(
    ("augment", "images", "out", "message"),
    [
        ({"preset": "none"}, None, None, r"config\.augment: nothing is switched on"),
        ({}, "nothing.jpg", None, "--images=nothing.jpg: there is no such file"),
        ({}, None, "grid.pdf", r"--out=.*grid\.pdf: give a file that ends in \.png"),
    ],
)
def test_mistakes_are_reported(tmp_path, screen, augment, images, out, message):
    with pytest.raises(UserError, match=message):
        show_augmentation(config_of(**augment), images, out and tmp_path / out, tmp_path, screen)


def test_a_file_that_is_not_an_image_is_reported(tmp_path, screen):
    (tmp_path / "text.jpg").write_text("no image")
    with pytest.raises(UserError, match=r"--images=.*text\.jpg: not an image"):
        show_augmentation(config_of(), str(tmp_path / "text.jpg"), tmp_path, tmp_path, screen)

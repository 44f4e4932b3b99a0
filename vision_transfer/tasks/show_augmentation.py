"""The mode `show_augmentation`: draws an image and nine variants of it as training would see them."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import numpy as np
from jaxtyping import Float32, UInt8

from vision_transfer.config import Config
from vision_transfer.config.references import is_reference
from vision_transfer.config.schema import AugmentConfig
from vision_transfer.data.augmentation.augment import augment_epoch, augmentation_of
from vision_transfer.data.augmentation.warp import fill_mode
from vision_transfer.data.dataset import Split, digest_image, stack_digests
from vision_transfer.data.find import find_source
from vision_transfer.data.formats.image_files import display
from vision_transfer.data.images.decode import UndecodableError, decode_file
from vision_transfer.data.images.resize import resize
from vision_transfer.data.load import source_with_splits
from vision_transfer.errors import UserError
from vision_transfer.predict.image_files import find_images
from vision_transfer.runtime.console import Screen
from vision_transfer.tasks.figures import MEDIUM, new_figure, save_png, wrapped
from vision_transfer.training.loop import stage_key

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIDE = 3
INCHES_PER_IMAGE, PIXELS_PER_INCH = 2.0, 120
# Fields of an AugmentConfig that switch no operation on.
NOT_SHOWN = ("preset", "fill", "bank", "bank_seed")


Image = UInt8[np.ndarray, "size size channels"]


def show_augmentation(config: Config, images: str | None, out: Path | None, cache_dir: Path, screen: Screen) -> Path:
    """Draws the grid; returns its file.

    The image is the first of `images` (a file, folder or pattern; default: the training images). `out` is a file or an
    existing folder; default: `augmentation.png` in the working directory.

    Raises:
        UserError: the config augments nothing, or there is no such image or data.
    """
    augmentation = augmentation_of(config.augment)
    if augmentation is None:
        raise UserError(
            "config.augment: nothing is switched on, so every variant equals the image; try "
            "--config.augment.preset=keras_layers --config.augment.flip=horizontal --config.augment.rotation=0.1 "
            "--config.augment.zoom=0.2, or a recipe such as --config=from_scratch:augment=True"
        )
    path = _png(out)
    if images is None:
        name, image = _first_training_image(config, cache_dir, screen)
    else:
        name, image = _first_of(config, images, cache_dir, screen)
    figure = grid_figure(name, image, variants(image, augmentation, config), augmentation)
    save_png(figure, path, PIXELS_PER_INCH)
    screen.say(f"{SIDE * SIDE} variants of {name} are in {path}.")
    return path


def variants(image: Image, augmentation: AugmentConfig, config: Config) -> Float32[np.ndarray, "9 size size channels"]:
    """An image in the first nine epochs of a stage that augments, values 0–255; with a bank, its variants in turn."""
    key = stage_key(config.seed, next((name for name in config.schedule if config.stages[name].augment), ""))
    one = Split(image[None], np.zeros(1, np.int32), ("",), stack_digests([digest_image(image)]))
    apply = jax.jit(partial(augment_epoch, config=augmentation))
    return np.concatenate([np.asarray(apply(one.images, one.example_ids, key, epoch)) for epoch in range(SIDE * SIDE)])


def grid_figure(
    name: str, image: Image, varied: Float32[np.ndarray, "9 size size channels"], augmentation: AugmentConfig
) -> "Figure":
    """The original on the left, and three by three variants to its right."""
    size = image.shape[0]
    figure = new_figure(INCHES_PER_IMAGE * (SIDE + 1), INCHES_PER_IMAGE * SIDE + 1.0)
    grid = figure.add_gridspec(SIDE, SIDE + 1)
    panels = [(figure.add_subplot(grid[SIDE // 2, 0]), image, "original")]
    for number, variant in enumerate(varied):
        label = f"variant {number % augmentation.bank + 1}" if augmentation.bank else f"epoch {number + 1}"
        panels.append((figure.add_subplot(grid[number // SIDE, number % SIDE + 1]), variant, label))
    for axes, pixels, label in panels:
        axes.imshow(np.clip(np.rint(pixels), 0, 255).astype(np.uint8).squeeze(), cmap="gray", vmin=0, vmax=255)
        axes.set_title(label, fontsize="small")
        axes.set_axis_off()
    title = f"{name}, {size}×{size} pixels\n{describe(augmentation)}"
    figure.suptitle(wrapped(title, figure.get_figwidth()), fontsize=MEDIUM)
    return figure


def describe(augmentation: AugmentConfig) -> str:
    """The active operations in one line: `keras_layers: flip horizontal, rotation 0.1, zoom 0.2; fill reflect`."""
    if is_reference(augmentation.preset):
        return augmentation.preset
    neutral = AugmentConfig()
    on = [
        f"{name.replace('_', ' ')} {value}"
        for name, value in vars(augmentation).items()
        if name not in NOT_SHOWN and value != getattr(neutral, name)
    ]
    bank = f"; a bank of {augmentation.bank}" if augmentation.bank else ""
    return f"{augmentation.preset}: {', '.join(on)}; fill {fill_mode(augmentation)}{bank}"


def _first_training_image(config: Config, cache_dir: Path, screen: Screen) -> tuple[str, Image]:
    data = config.dataset
    source = source_with_splits(data, cache_dir, screen)
    examples, size = source.splits["train"], data.image_size or source.default_size
    for index, name in enumerate(examples.files):
        try:
            image = examples.pixels(index, data.channels)
        except UndecodableError:
            # training leaves it out, too
            continue
        return name, resize(image, size, data.resampling)
    raise UserError(f"{source.name}: no training image can be decoded; expected {source.expected}")


def _first_of(config: Config, images: str, cache_dir: Path, screen: Screen) -> tuple[str, Image]:
    data = config.dataset
    path = Path(find_images(images)[0])
    size = data.image_size or find_source(data, cache_dir, screen).default_size
    try:
        image = decode_file(path, data.channels, data.value_range)
    except UndecodableError as error:
        raise UserError(f"--images={display(str(path))}: {error}") from error
    return display(path.name), resize(image, size, data.resampling)


def _png(out: Path | None) -> Path:
    path = Path("augmentation.png") if out is None else out
    if path.is_dir():
        path = path / "augmentation.png"
    if path.suffix.lower() != ".png":
        raise UserError(f"--out={display(str(path))}: give a file that ends in .png, or an existing folder")
    return path

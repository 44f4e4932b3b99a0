"""Computes the arrays of each figure of `--mode=explain`, draws them and writes the files."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vision_transfer.data.images.resize import resize
from vision_transfer.errors import UserError
from vision_transfer.models.layers import MaxPool, layer_names, stage_of, stages
from vision_transfer.models.network import Network, apply
from vision_transfer.runtime.console import Screen
from vision_transfer.tasks.explain.activation_maximization import Way, filter_images
from vision_transfer.tasks.explain.activations import SMALLEST_MAP, activations, last_map, map_layers, require_map
from vision_transfer.tasks.explain.figures import (
    activations_figure,
    filter_bank_figure,
    filters_figure,
    heat_figure,
    operations_figure,
    save_image,
    superimpose,
)
from vision_transfer.tasks.explain.heat_maps import grad_cam, smooth_grad
from vision_transfer.tasks.explain.images import NamedImage
from vision_transfer.tasks.explain.load import TOP, LoadedNetwork, class_number, top_predictions
from vision_transfer.tasks.explain.teaching import filter_banks, grey, operations, responses, sobel_kernels
from vision_transfer.tasks.figures import save_png

FIGURES = ("activations", "filters", "grad_cam", "smooth_grad", "filter_banks", "operations")
NEEDS_HEAD = frozenset({"grad_cam", "smooth_grad"})
NEEDS_NETWORK = NEEDS_HEAD | {"activations", "filters"}
NEEDS_IMAGES = frozenset(FIGURES) - {"filters"}
# Of a network with more maps than this, only one of each stage is drawn unless layers are named.
MOST_MAPS = 10
FIRST_FILTERS = tuple(range(16))
# Larger images are shrunk for filter banks, so that kernels and responses can be seen in one figure.
BANK_SIZE = 256
# Every number of an image this small can be read.
OPERATIONS_SIZE = 8
NOISE_SEED = 0
# Filters in one program: VGG16's activations of one image of 128 × 128 and their gradients take 50 MB.
CHUNK = 8
PIXELS_PER_INCH = 100


@dataclass(frozen=True)
class Selection:
    """The figures to draw of a network: names out of `FIGURES`.

    Attributes:
        layers: default: those that fit each figure.
        filters: default: the first 16.
        way: of gradient ascent.
        target: name or number of the class that heat maps explain; default: the likeliest of each image, as many as
            the network's `classes_drawn`.
    """

    show: Sequence[str]
    layers: tuple[str, ...] = ()
    filters: tuple[int, ...] | None = None
    way: Way = "smooth"
    target: str | None = None


def draw_teaching_figures(show: Sequence[str], images: Sequence[NamedImage], out: Path) -> list[Path]:
    """Writes the figures that need no network: classic filter banks, and convolution and pooling on a small copy."""
    written = []
    for image in images:
        if "filter_banks" in show:
            shrunk = image.at_most(BANK_SIZE)
            for bank, kernels in filter_banks().items():
                figure = filter_bank_figure(shrunk, image.name, kernels, responses(grey(shrunk), kernels))
                written.append(_saved(figure, out / f"filter_bank-{bank}-{image.name}.png"))
        if "operations" in show:
            small = _in_tenths(grey(image.small_square(OPERATIONS_SIZE)))
            kernel = sobel_kernels()[0]
            title = f"{image.name}, darkest 0, brightest 10"
            figure = operations_figure(small, kernel, operations(small, kernel.values), title)
            written.append(_saved(figure, out / f"operations-{image.name}.png"))
    return written


def draw_network_figures(
    loaded: LoadedNetwork, selection: Selection, images: Sequence[NamedImage], out: Path, screen: Screen
) -> list[Path]:
    """Writes the figures of a network; prints the likeliest classes of each image where there is a head.

    Raises:
        UserError: a layer, filter or class does not exist.
    """
    for layer in selection.layers:
        require_map(loaded.network, layer)
    target = None
    if selection.target is not None:
        if not loaded.classes:
            raise UserError(f"--target={selection.target}: this network has no classes; leave it out")
        target = class_number(selection.target, loaded.classes)
    written = []
    for image in images:
        pixels = resize(image.pixels, loaded.network.input_shape[0], loaded.config.dataset.resampling)[None]
        if "activations" in selection.show:
            layers = selection.layers or default_layers(loaded.network)
            for layer, maps in activations(loaded.network, loaded.variables, pixels, layers).items():
                figure = activations_figure(maps[0], layer, image.name)
                written.append(_saved(figure, out / f"activations-{image.name}-{layer}.png"))
        if loaded.classes:
            written += _draw_heat(loaded, selection, target, image, pixels, out, screen)
    if "filters" in selection.show:
        written += _draw_filters(loaded, selection, out, screen)
    return written


def _draw_heat(
    loaded: LoadedNetwork,
    selection: Selection,
    target: int | None,
    image: NamedImage,
    pixels: np.ndarray,
    out: Path,
    screen: Screen,
) -> Iterator[Path]:
    """Prints the likeliest classes of an image and draws the evidence for the likeliest ones, or for the target."""
    network, variables = loaded.network, loaded.variables
    logits = np.asarray(_logits(network, variables, pixels))
    (likeliest,) = top_predictions(logits, loaded.classes, loaded.temperature, max(TOP, loaded.classes_drawn))
    texts = ", ".join(text for _, text in likeliest)
    screen.say(f"{image.name}: {texts}")
    caption = f"{image.name}\n{texts}"
    drawn = [number for number, _ in likeliest[: loaded.classes_drawn]] if target is None else [target]
    for number in drawn:
        name, targets = loaded.classes[number], np.array([number], np.int32)
        # two of ImageNet's classes may have one name: crane, maillot
        own = f"{number}-{name}" if loaded.classes.count(name) > 1 else name
        ending = f"-{own}.png" if len(drawn) > 1 else ".png"
        if "grad_cam" in selection.show:
            for layer in selection.layers or (last_map(network),):
                heat = grad_cam(network, variables, pixels, layer, targets)[0]
                title = f"Grad-CAM for {name}\nat {layer}, {heat.shape[0]} × {heat.shape[1]}{_doubt(heat)}"
                file = out / f"grad_cam-{image.name}-{layer}{ending}"
                yield _saved(heat_figure(image.pixels, heat, caption, title), file)
                yield save_image(superimpose(image.pixels, heat), file.with_name(f"{file.stem}-picture.png"))
        if "smooth_grad" in selection.show:
            heat = smooth_grad(network, variables, pixels, targets, jax.random.key(NOISE_SEED))[0]
            title = f"SmoothGrad for {name}\nof the pixels, {heat.shape[0]} × {heat.shape[1]}{_doubt(heat)}"
            yield _saved(heat_figure(image.pixels, heat, caption, title), out / f"smooth_grad-{image.name}{ending}")


_logits = jax.jit(apply, static_argnames="network")


def _draw_filters(loaded: LoadedNetwork, selection: Selection, out: Path, screen: Screen) -> Iterator[Path]:
    # gradient ascent runs the backbone alone, on images of another size
    backbone = replace(loaded.network, head=())
    for layer in selection.layers or (last_map(backbone),):
        _, _, channels = require_map(backbone, layer)
        numbers = selection.filters if selection.filters is not None else FIRST_FILTERS[:channels]
        key = jax.random.key(NOISE_SEED)
        images = []
        with screen.bar(f"Filters of {layer}", len(numbers), unit="filters") as advance:
            for first in range(0, len(numbers), CHUNK):
                some = numbers[first : first + CHUNK]
                found, _, _ = filter_images(backbone, loaded.variables, layer, some, key, way=selection.way)
                images.append(found)
                advance(len(some))
        figure = filters_figure(np.concatenate(images), numbers, layer, selection.way)
        yield _saved(figure, out / f"filters-{layer}-{selection.way}.png")


def _doubt(heat: np.ndarray) -> str:
    """A line for the title of a heat map that shows nothing or hardly anything; otherwise empty."""
    if not heat.any():
        return "\nnothing supports this class: 0 everywhere"
    return "\ntoo small a map to show places" if min(heat.shape) < SMALLEST_MAP else ""


def _saved(figure: Any, path: Path) -> Path:
    return save_png(figure, path, PIXELS_PER_INCH)


def _in_tenths(brightness: np.ndarray) -> np.ndarray:
    """Whole numbers from 0, the darkest, to 10, the brightest."""
    spread = float(np.ptp(brightness)) or 1.0
    return np.rint(10 * (brightness - brightness.min()) / spread)


def default_layers(network: Network) -> tuple[str, ...]:
    """All maps of a small network; the last of each stage of a deep one.

    If its table names no stages, they are its pools; without those, maps at equal distances.
    """
    maps = map_layers(network)
    if not maps:
        raise UserError(
            "--show=activations: this network has no convolution, so there are no maps to look at; --show=smooth_grad "
            "shows which pixels count, and needs none"
        )
    if len(maps) <= MOST_MAPS:
        return maps
    if all(stage_of(row) == row.name for row in network.backbone):
        ends = {layer.name for layer in network.layers if isinstance(layer, MaxPool)}
    else:
        ends = {layer_names(members)[-1] for _, members in stages(network.backbone)}
    chosen = tuple(name for name in maps if name in ends)
    return chosen or tuple(maps[place] for place in np.linspace(0, len(maps) - 1, MOST_MAPS).round().astype(int))

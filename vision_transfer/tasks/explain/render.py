"""The windows of `--mode=explain`: each computes its arrays, draws them and writes the files."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from rich.markup import escape

from vision_transfer.errors import UserError
from vision_transfer.models.layers import MaxPool
from vision_transfer.models.network import Network, Params, apply
from vision_transfer.runtime.console import Screen
from vision_transfer.tasks.explain.activation_maximization import CHUNK, Way, filter_images
from vision_transfer.tasks.explain.activations import activations
from vision_transfer.tasks.explain.figures import save, save_picture
from vision_transfer.tasks.explain.filter_banks import filter_banks, grey, responses, sobel_kernels
from vision_transfer.tasks.explain.grad_cam import grad_cam
from vision_transfer.tasks.explain.images import Picture
from vision_transfer.tasks.explain.maps import last_map, map_layers, require_map
from vision_transfer.tasks.explain.network_figures import activations_figure, filters_figure, heat_figure
from vision_transfer.tasks.explain.operations import operations
from vision_transfer.tasks.explain.overlay import superimpose
from vision_transfer.tasks.explain.predictions import Prediction, class_number, top_predictions
from vision_transfer.tasks.explain.smooth_grad import smooth_grad
from vision_transfer.tasks.explain.teaching_figures import filter_bank_figure, operations_figure

WINDOWS = ("activations", "filters", "grad_cam", "smooth_grad", "filter_banks", "operations")
NEEDS_NETWORK = frozenset({"activations", "filters", "grad_cam", "smooth_grad"})
NEEDS_HEAD = frozenset({"grad_cam", "smooth_grad"})
NEEDS_PICTURES = frozenset(WINDOWS) - {"filters"}
# Where a network has more maps than this, only its pools are shown unless layers are named.
MOST_MAPS = 10
FIRST_FILTERS = tuple(range(16))
# Larger pictures are shrunk for filter banks, so that kernels and answers can be seen in one figure.
BANK_SIZE = 256
# Of a small image every number can be read.
OPERATIONS_SIZE = 8
NOISE_SEED = 0


@dataclass(frozen=True)
class View:
    """What to look at in a network.

    Attributes:
        network: the tables.
        variables: `params` and `batch_stats`.
        classes: what the head tells apart; empty without a head.
        resampling: how pictures come to the network's size.
        layers: to look at; empty for what fits.
        filters: whose images are sought; None for the first 16.
        way: how they are sought.
        target: class that heat maps speak for; None for the likeliest of each picture.
    """

    network: Network
    variables: dict[str, Params]
    classes: tuple[str, ...]
    resampling: str
    layers: tuple[str, ...] = ()
    filters: tuple[int, ...] | None = None
    way: Way = "smooth"
    target: str | None = None


def draw_picture_windows(show: Iterable[str], pictures: Sequence[Picture], out: Path) -> list[Path]:
    """The windows that need no network: classic filter banks, and convolution and pooling on a small copy."""
    written = []
    for picture in pictures:
        if "filter_banks" in show:
            shrunk = picture.at_most(BANK_SIZE)
            brightness = grey(shrunk)
            for bank, kernels in filter_banks().items():
                path = out / f"filter_bank-{bank}-{picture.name}.png"
                save(filter_bank_figure(shrunk, picture.name, kernels, responses(brightness, kernels)), path)
                written.append(path)
        if "operations" in show:
            small = _in_tenths(grey(picture.small_square(OPERATIONS_SIZE)))
            kernel = sobel_kernels()[0]
            path = out / f"operations-{picture.name}.png"
            title = f"{picture.name}, darkest 0, brightest 10"
            save(operations_figure(small, kernel, operations(small, kernel.values), title), path)
            written.append(path)
    return written


def network_windows(
    view: View, show: Sequence[str], pictures: Sequence[Picture], out: Path, screen: Screen
) -> list[Path]:
    """The windows into a network.

    Raises:
        UserError: a layer, filter or class that does not exist, or a window that needs a head where there is none.
    """
    target = class_number(view.target, view.classes) if view.target is not None and view.classes else None
    for layer in view.layers:
        require_map(view.network, layer)
    written: list[Path] = []
    if pictures:
        size = view.network.input_shape[0]
        images = np.stack([picture.resized(size, view.resampling) for picture in pictures])
        if "activations" in show:
            written += _draw_activations(view, images, pictures, out)
        if view.classes:
            written += _draw_heat(view, show, target, images, pictures, out, screen)
    if "filters" in show:
        written += _draw_filters(view, out, screen)
    return written


def _draw_heat(
    view: View,
    show: Sequence[str],
    target: int | None,
    images: np.ndarray,
    pictures: Sequence[Picture],
    out: Path,
    screen: Screen,
) -> list[Path]:
    """Says what the head holds each picture to be, and draws what speaks for it, or for the target."""
    found = _predictions(view, images)
    for picture, likeliest in zip(pictures, found, strict=True):
        screen.say(escape(f"{picture.name}: {', '.join(each.text for each in likeliest)}"))
    targets = np.array([each[0].number if target is None else target for each in found], np.int32)
    written: list[Path] = []
    if "grad_cam" in show:
        written += _draw_grad_cam(view, images, targets, found, pictures, out)
    if "smooth_grad" in show:
        written += _draw_smooth_grad(view, images, targets, found, pictures, out)
    return written


def _draw_activations(view: View, images: np.ndarray, pictures: Sequence[Picture], out: Path) -> list[Path]:
    written = []
    layers = view.layers or _layers_that_fit(view.network)
    for number, picture in enumerate(pictures):
        for layer, maps in activations(view.network, view.variables, images[number : number + 1], layers).items():
            path = out / f"activations-{picture.name}-{layer}.png"
            save(activations_figure(maps[0], layer, picture.name), path)
            written.append(path)
    return written


def _draw_grad_cam(
    view: View,
    images: np.ndarray,
    targets: np.ndarray,
    found: Sequence[Sequence[Prediction]],
    pictures: Sequence[Picture],
    out: Path,
) -> list[Path]:
    written = []
    for layer in view.layers or (last_map(view.network),):
        for number, picture in enumerate(pictures):
            here = slice(number, number + 1)
            heat = grad_cam(view.network, view.variables, images[here], layer, targets[here])[0]
            name = view.classes[targets[number]]
            figure = heat_figure(
                picture.pixels,
                heat,
                _caption(picture, found[number]),
                f"Grad-CAM for {name}\nat {layer}, {heat.shape[0]} × {heat.shape[1]}",
            )
            path = out / f"grad_cam-{picture.name}-{layer}.png"
            save(figure, path)
            alone = out / f"grad_cam-{picture.name}-{layer}-picture.png"
            save_picture(superimpose(picture.pixels, heat), alone)
            written += [path, alone]
    return written


def _draw_smooth_grad(
    view: View,
    images: np.ndarray,
    targets: np.ndarray,
    found: Sequence[Sequence[Prediction]],
    pictures: Sequence[Picture],
    out: Path,
) -> list[Path]:
    written = []
    for number, picture in enumerate(pictures):
        here = slice(number, number + 1)
        key = jax.random.key(NOISE_SEED)
        heat = smooth_grad(view.network, view.variables, images[here], targets[here], key)[0]
        title = f"SmoothGrad for {view.classes[targets[number]]}\nof the pixels, {heat.shape[0]} × {heat.shape[1]}"
        path = out / f"smooth_grad-{picture.name}.png"
        save(heat_figure(picture.pixels, heat, _caption(picture, found[number]), title), path)
        written.append(path)
    return written


def _draw_filters(view: View, out: Path, screen: Screen) -> list[Path]:
    written = []
    for layer in view.layers or (last_map(view.network),):
        channels = view.network.shape_after(layer)[-1]
        numbers = view.filters if view.filters is not None else FIRST_FILTERS[:channels]
        key = jax.random.key(NOISE_SEED)
        images = []
        with screen.bar(f"Filters of {layer}", len(numbers), unit="filters") as advance:
            for first in range(0, len(numbers), CHUNK):
                some = numbers[first : first + CHUNK]
                found = filter_images(view.network, view.variables, layer, some, key, way=view.way)
                images.append(found.images)
                advance(len(some))
        path = out / f"filters-{layer}-{view.way}.png"
        save(filters_figure(np.concatenate(images), numbers, layer, view.way), path)
        written.append(path)
    return written


def _in_tenths(brightness: np.ndarray) -> np.ndarray:
    """Whole numbers from 0, the darkest, to 10, the brightest."""
    spread = float(np.ptp(brightness)) or 1.0
    return np.rint(10 * (brightness - brightness.min()) / spread)


def _predictions(view: View, images: np.ndarray) -> list[list[Prediction]]:
    logits = [np.asarray(_logits(view.network, view.variables, image[None])) for image in images]
    return top_predictions(np.concatenate(logits), view.classes)


_logits = jax.jit(apply, static_argnames="network")


def _caption(picture: Picture, likeliest: Sequence[Prediction]) -> str:
    return f"{picture.name}\n{', '.join(each.text for each in likeliest)}"


def _layers_that_fit(network: Network) -> tuple[str, ...]:
    """All maps of a small network; of a deep one the pools."""
    maps = map_layers(network)
    if not maps:
        raise UserError("--show=activations: this network has no convolution, so there are no maps to look at")
    pools = {layer.name for layer in network.layers if isinstance(layer, MaxPool)}
    return maps if len(maps) <= MOST_MAPS else tuple(name for name in maps if name in pools)

"""The network to explain where there is no run, a pretrained backbone or classifier; and names of the classes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

import numpy as np
from jaxtyping import Float

from vision_transfer.config import Config
from vision_transfer.errors import UserError, nearest_names
from vision_transfer.models.backbones.registry import BACKBONES, backbone_rows, find_backbone
from vision_transfer.models.load import initial_variables, load_backbone_weights
from vision_transfer.models.network import Network, Params
from vision_transfer.models.precision import Numerics
from vision_transfer.predict.temperature import probabilities
from vision_transfer.runs.build import loads_pretrained_weights
from vision_transfer.runtime.console import Screen

IMAGENET_FILE = "imagenet_classes.txt"
TOP = 3
# A longer list of classes is not printed in full.
MOST_NAMES_LISTED = 20
# ImageNet's classes have near neighbours, so its results are told by the five likeliest.
IMAGENET_TOP = 5


def top_predictions(
    logits: Float[np.ndarray, "examples outputs"], classes: Sequence[str], temperature: float = 1.0, top: int = TOP
) -> list[list[tuple[int, str]]]:
    """Number and text (`African_elephant 0.909`) of each example's `top` likeliest classes, the likeliest first."""
    shares = probabilities(logits, temperature)
    order = np.argsort(-shares, axis=1, kind="stable")[:, :top]
    return [
        [(number, f"{classes[number]} {row[number]:.3f}") for number in map(int, numbers)]
        for row, numbers in zip(shares, order, strict=True)
    ]


def class_number(text: str, classes: Sequence[str]) -> int:
    """The class that a user gives by name or number.

    Raises:
        UserError: there is none, or several have this name.
    """
    numbers = [number for number, name in enumerate(classes) if name == text]
    if len(numbers) > 1:
        several = " and ".join(map(str, numbers))
        raise UserError(f"--target={text}: several classes have this name; give the number of one: {several}")
    if numbers:
        return numbers[0]
    if text.isascii() and text.isdigit() and int(text) < len(classes):
        return int(text)
    hint = nearest_names(text, classes)
    if len(classes) > MOST_NAMES_LISTED and not hint.startswith("did you mean"):
        hint = f"its {len(classes)} classes range from {classes[0]} to {classes[-1]}"
    raise UserError(f"--target={text}: the network has no such class; {hint} (or a number, 0 to {len(classes) - 1})")


def imagenet_classes() -> tuple[str, ...]:
    """ImageNet's 1,000 names in the order of the classifiers' outputs, as in Keras: `African_elephant` is 386."""
    text = resources.files(__package__ or "").joinpath(IMAGENET_FILE).read_text(encoding="utf-8")
    return tuple(line for line in text.splitlines() if line and not line.startswith("#"))


@dataclass(frozen=True)
class LoadedNetwork:
    """A network with its weights, and the default folder for its figures; a backbone alone has no head and classes.

    `temperature` divides its logits before they become probabilities, as in `--mode=predict`. Heat maps are drawn for
    the `classes_drawn` likeliest classes.
    """

    network: Network
    variables: dict[str, Params]
    classes: tuple[str, ...]
    config: Config
    figures: Path
    temperature: float = 1.0
    classes_drawn: int = 1


def network_of_config(
    config: Config, data_size: int | None, with_classifier: bool, cache_dir: Path, screen: Screen
) -> LoadedNetwork:
    """Loads the backbone that a config names, with the weights that training would start from.

    `data_size` is that of the data set's images, None for images of any size that a user names. The classifier is that
    of ImageNet's classes.

    Raises:
        UserError: there is no classifier for this backbone, the weights are not available, or they are those of a run.
    """
    if config.init_from is not None:
        raise UserError(
            f"config.init_from: got {config.init_from!r}; to look into a run, give --workdir={config.init_from} and "
            "no --config"
        )
    model, known = config.model, find_backbone(config.model.backbone)
    default_size = data_size if data_size is not None and not with_classifier else known.image_size
    size = config.dataset.image_size or default_size
    published = loads_pretrained_weights(config)
    if with_classifier and not (known.classifier and published):
        with_classifiers = " or ".join(name for name, backbone in BACKBONES.items() if backbone.classifier)
        raise UserError(
            f"--mode=explain: {model.backbone} with {model.weights} weights has no classes to explain; give "
            f"--workdir=RUN, or {with_classifiers} with ImageNet weights"
        )
    if with_classifier and size != known.image_size:
        raise UserError(
            f"config.dataset.image_size: got {size}; the ImageNet classifier of {model.backbone} takes "
            f"{known.image_size}"
        )
    rows = backbone_rows(
        model.backbone, output=None if with_classifier else model.backbone_output, batch_norm=model.batch_norm
    )
    network = Network(
        rows,
        known.classifier if with_classifier else (),
        (size, size, config.dataset.channels),
        preprocessing=model.preprocessing or known.preprocessing,
        numerics=Numerics(config.precision),
    )
    weights = None
    if published:
        weights = load_backbone_weights(
            model.backbone,
            include_classifier=with_classifier,
            channels=config.dataset.channels,
            path=model.weights_path,
            cache_dir=cache_dir,
            screen=screen,
            batch_norm=model.batch_norm,
            image_size=size,
        )
        network = replace(network, preprocessing=model.preprocessing or weights.preprocessing)
    variables = initial_variables(network, config.seed, weights)
    loaded = LoadedNetwork(network, variables, (), config, Path("explain"))
    return replace(loaded, classes=imagenet_classes(), classes_drawn=IMAGENET_TOP) if with_classifier else loaded

"""Loads the network to explain where there is no run: a pretrained backbone, or VGG with its ImageNet classifier."""

from dataclasses import dataclass, replace
from pathlib import Path

from vision_transfer.config import Config
from vision_transfer.errors import UserError
from vision_transfer.models.backbones.registry import BACKBONES, backbone_rows, find_backbone
from vision_transfer.models.load import initial_variables, load_backbone_weights
from vision_transfer.models.network import Network, Params
from vision_transfer.models.precision import Numerics
from vision_transfer.runs.build import uses_published_weights
from vision_transfer.runtime.console import Screen
from vision_transfer.tasks.explain.predictions import imagenet_classes

# ImageNet's classes have near neighbours, so its results are told by the five likeliest.
IMAGENET_TOP = 5


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
        UserError: there is no classifier for this backbone, or the weights are not available.
    """
    model, known = config.model, find_backbone(config.model.backbone)
    default_size = data_size if data_size is not None and not with_classifier else known.image_size
    size = config.dataset.image_size or default_size
    published = uses_published_weights(config)
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
        model.backbone,
        output=None if with_classifier else model.backbone_output,
        batch_norm=model.batch_norm,
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
        )
        network = replace(network, preprocessing=model.preprocessing or weights.preprocessing)
    variables = initial_variables(network, config.seed, weights)
    loaded = LoadedNetwork(network, variables, (), config, Path("explain"))
    return replace(loaded, classes=imagenet_classes(), classes_drawn=IMAGENET_TOP) if with_classifier else loaded

"""Loads a backbone of the registry with its weights, and with a head if one is asked for."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import jax

from vision_transfer.config.references import is_reference
from vision_transfer.errors import UserError
from vision_transfer.models.backbones.registry import BACKBONES, backbone_rows, find_backbone
from vision_transfer.models.heads import head_layers
from vision_transfer.models.network import Network, Params, all_parameter_shapes, init
from vision_transfer.models.precision import Numerics, PrecisionName
from vision_transfer.models.pretrained.load import PretrainedWeights, load_pretrained
from vision_transfer.runtime.cache_folder import cache_folder
from vision_transfer.runtime.console import Screen

RGB = 3


def load(
    backbone: str,
    *,
    classes: int | Literal["imagenet"] | None = None,
    weights: str | Path = "imagenet",
    pooling: Literal["average", "flatten"] = "average",
    image_size: int | None = None,
    precision: PrecisionName = "float32",
    seed: int = 0,
    cache_dir: Path | None = None,
    screen: Screen | None = None,
) -> tuple[Network, dict[str, Params]]:
    """A network and its variables, a plain pytree of float32 numpy arrays.

    Examples:
        >>> network, variables = load("efficientnet_lite0", classes=2)
        >>> variables["params"]["head_logits"]["kernel"].shape
        (1280, 2)

    Args:
        backbone: a name of the registry.
        classes: outputs of a new linear head, drawn from the seed; "imagenet" for the published classifier of
            ImageNet's 1,000 classes; None for the backbone alone.
        weights: "imagenet" for the published ones, which are downloaded once; "random"; or a file (.h5, .keras,
            .safetensors, .onnx, .pth; or hf:OWNER/NAME).
        pooling: "average" averages the last map, so that the backbone gives `(batch, channels)`; "flatten" keeps
            the map. The published classifier brings its own.
        image_size: height and width of the images; by default those that the weights were trained on.
        precision: of the arithmetic.
        seed: of everything that is random.
        cache_dir: root of all caches; the command line's by default.
        screen: for the origin and licence of the weights; standard output by default.

    Returns:
        The network, and `{"params": …, "batch_stats": …}`, each layer → name → array; `batch_stats` has the running
        statistics of batch norms. The network preprocesses images of values 0–255 itself, as its weights need it.

    Raises:
        UserError: an unknown backbone, or weights or a classifier that do not exist or cannot be read.
    """
    known = find_backbone(backbone)
    published = classes == "imagenet"
    if published and not (known.classifier and weights == "imagenet" and image_size in (None, known.image_size)):
        names = ", ".join(name for name, entry in BACKBONES.items() if entry.classifier)
        raise UserError(
            f"load: {backbone} with {weights} weights at {image_size or known.image_size} pixels has no classifier of "
            f"ImageNet; these have one with their ImageNet weights, at their own size: {names}"
        )
    if weights == "imagenet" and not known.releases:
        raise UserError(f"load: {backbone} has no published weights; give weights='random' or weights=FILE")
    head = known.classifier if published else ()
    if isinstance(classes, int):
        head = head_layers(classes, flatten=pooling == "flatten")
    size = image_size or known.image_size
    network = Network(
        backbone_rows(backbone, global_average=pooling == "average" and not published),
        head,
        (size, size, RGB),
        known.preprocessing,
        Numerics(precision),
    )
    if weights == "random":
        return network, initial_variables(network, seed, None)
    loaded = load_backbone_weights(
        backbone,
        include_classifier=published,
        channels=RGB,
        path=None if weights == "imagenet" else str(weights),
        cache_dir=cache_dir or cache_folder(),
        screen=screen or Screen(),
    )
    network = replace(network, preprocessing=loaded.preprocessing)
    return network, initial_variables(network, seed, loaded)


def load_backbone_weights(
    backbone: str,
    *,
    include_classifier: bool = False,
    channels: int,
    path: str | None,
    cache_dir: Path,
    screen: Screen,
    allow_download: bool = True,
    batch_norm: bool = False,
    image_size: int | None = None,
) -> PretrainedWeights:
    """The pretrained weights of a backbone, all of it, so that their digest can be checked; see `load_pretrained`.

    `batch_norm` as in `backbone_rows`. The kernel of a dense layer in a backbone of the user's own is of `image_size`.
    """
    known = find_backbone(backbone)
    classifier = known.classifier if include_classifier else ()
    size = image_size if image_size and is_reference(backbone) else known.image_size
    whole = Network(backbone_rows(backbone, batch_norm=batch_norm), classifier, (size, size, channels))
    return load_pretrained(
        backbone,
        include_classifier=include_classifier,
        shapes=all_parameter_shapes(whole),
        cache_dir=cache_dir,
        path=path,
        screen=screen,
        allow_download=allow_download,
    )


def initial_variables(network: Network, seed: int, weights: PretrainedWeights | None) -> dict[str, Params]:
    """Variables: `weights` in the layers that it has; in the others draws from the seed, means 0 and variances 1."""
    if weights is None:
        return init(network, jax.random.key(seed))
    variables = init(network, jax.random.key(seed), given=weights.params)
    variables["batch_stats"] |= {
        layer: dict(leaves) for layer, leaves in weights.batch_stats.items() if layer in variables["params"]
    }
    return variables

"""The weights that a run starts from: published ones or a file's, and the copy that a run keeps of an earlier run's."""

from pathlib import Path

import jax
import numpy as np

from vision_transfer.config import Config
from vision_transfer.errors import UserError
from vision_transfer.models.load import load_backbone_weights
from vision_transfer.models.network import Network, Params, all_parameter_shapes
from vision_transfer.models.pretrained.load import PretrainedWeights
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.provenance import params_sha256
from vision_transfer.training import checkpoints


def load_weights(
    config: Config, cache_dir: Path, screen: Screen, allow_download: bool = True, image_size: int | None = None
) -> PretrainedWeights:
    """The pretrained weights that the config names: published ones, or those of its file.

    `image_size` is that of the images; needed for a backbone of the user's own that has a dense layer.
    """
    return load_backbone_weights(
        config.model.backbone,
        channels=config.dataset.channels,
        path=config.model.weights_path,
        cache_dir=cache_dir,
        screen=screen,
        allow_download=allow_download,
        batch_norm=config.model.batch_norm,
        image_size=image_size,
    )


def variables_sha256(params: Params, batch_stats: Params) -> str:
    """Digest over names, shapes and values of parameters and running statistics."""
    by_layer = {f"params/{layer}": leaves for layer, leaves in params.items()}
    return params_sha256(by_layer | {f"batch_stats/{layer}": leaves for layer, leaves in batch_stats.items()})


def needs_own_copy(config: Config) -> bool:
    """Whether a run keeps a copy of its initial weights: of an earlier run, or of a file, which may be gone later.

    Published weights can be had again, and are too large for a copy in each run.
    """
    return config.init_from is not None or config.model.weights_path is not None


def save_initial_weights(folder: Path, weights: PretrainedWeights, network: Network) -> None:
    """Keeps a copy of what a run started from, of the layers that it has, so that its folder is whole without it."""
    checkpoints.clean(folder)
    if checkpoints.load_metadata(folder) is not None:
        return
    layers = all_parameter_shapes(network)
    params = {layer: leaves for layer, leaves in weights.params.items() if layer in layers}
    batch_stats = {layer: leaves for layer, leaves in weights.batch_stats.items() if layer in layers}
    metadata = {
        "source": weights.source,
        "sha256": weights.sha256,
        "preprocessing": weights.preprocessing,
        "licence": weights.licence,
        "kept_sha256": variables_sha256(params, batch_stats),
        "params": list(params),
        "batch_stats": list(batch_stats),
    }
    checkpoints.save(folder, 0, {"params": params, "batch_stats": batch_stats}, metadata)


def load_initial_weights(folder: Path, network: Network) -> PretrainedWeights | None:
    """The copy that `save_initial_weights` made, or None where there is none.

    Raises:
        UserError: it is damaged, or of another network.
    """
    metadata = checkpoints.load_metadata(folder)
    if metadata is None:
        return None
    shapes = all_parameter_shapes(network)
    try:
        template = {
            "params": {
                layer: {name: _float32(shape) for name, shape in shapes[layer].items()} for layer in metadata["params"]
            },
            "batch_stats": {
                layer: {name: _float32(shapes[layer]["scale"]) for name in ("mean", "variance")}
                for layer in metadata["batch_stats"]
            },
        }
        source, sha256, preprocessing, licence, digest = (
            metadata[name] for name in ("source", "sha256", "preprocessing", "licence", "kept_sha256")
        )
    except (KeyError, TypeError) as error:
        raise UserError(f"{folder}: is damaged, or of another network ({error!r})") from error
    saved = checkpoints.load(folder, template)
    assert saved is not None, "its metadata was just read"
    tree = saved.tree
    if variables_sha256(tree["params"], tree["batch_stats"]) != digest:
        raise UserError(f"{folder}: its parameters do not have the digest {digest} that is written beside them")
    return PretrainedWeights(tree["params"], source, sha256, preprocessing, licence, tree["batch_stats"])


def _float32(shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, np.float32)

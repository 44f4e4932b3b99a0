"""What a run starts from: data, network, weights and stages, and the identity that follows from them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax

from vision_transfer.config import Config, digested, validate
from vision_transfer.data.dataset import Dataset
from vision_transfer.data.load import load_dataset
from vision_transfer.models.backbones import backbone_layers
from vision_transfer.models.network import Network, Params, all_parameter_shapes, init
from vision_transfer.pretrained.load import PretrainedWeights, load_pretrained
from vision_transfer.provenance import code_digest, json_digest, versions
from vision_transfer.resolve import (
    DataFacts,
    Stage,
    build_network,
    data_request,
    resolve_stages,
    uses_published_weights,
    with_preprocessing_of,
)
from vision_transfer.run_folder import Identity
from vision_transfer.screen import Screen
from vision_transfer.stopping import StopSignal

# VGG's own image size; the shapes of its convolutions are the same for any.
NATIVE_SIZE = 224


@dataclass(frozen=True)
class RunOptions:
    """What the command line says of a run besides its config.

    Attributes:
        workdir: folder of the run; None for `runs/<name>-<digest>`.
        cache_dir: root of all caches.
        rerun: do a run again whose code, versions or device have changed since.
        reuse: take or continue it nevertheless.
        stop: whether to save and stop now.
    """

    workdir: Path | None
    cache_dir: Path
    rerun: bool = False
    reuse: bool = False
    stop: StopSignal = field(default_factory=StopSignal)


@dataclass(frozen=True)
class Setup:
    """Everything that a run starts from.

    Attributes:
        config: with what follows from the data filled in.
        dataset: decoded.
        network: with the preprocessing of its weights.
        weights: the pretrained ones, or None.
        stages: in order.
        identity: of the run.
    """

    config: Config
    dataset: Dataset
    network: Network
    weights: PretrainedWeights | None
    stages: list[Stage]
    identity: Identity


def initial_variables(network: Network, seed: int, weights: PretrainedWeights | None) -> dict[str, Params]:
    """Parameters drawn from the seed, those of the backbone replaced by the pretrained ones."""
    variables = init(network, jax.random.key(seed))
    if weights is not None:
        variables["params"] |= {
            layer: dict(leaves) for layer, leaves in weights.params.items() if layer in variables["params"]
        }
    return variables


def prepare(config: Config, cache_dir: Path, screen: Screen) -> Setup:
    """Loads data and weights and resolves the config against them.

    Raises:
        UserError: a config, data or weights that cannot be used.
    """
    validate(config)
    dataset = load_dataset(data_request(config), cache_dir=cache_dir, screen=screen)
    image_shape = dataset.train.images.shape[1:]
    network = build_network(config, DataFacts(len(dataset.classes), image_shape))
    stages = resolve_stages(config, network)
    weights = load_weights(config, cache_dir, screen) if uses_published_weights(config) else None
    if weights is not None:
        network = with_preprocessing_of(network, config, weights.preprocessing)
        stages = resolve_stages(config, network)
    resolved = _resolved(config, dataset, network)
    return Setup(resolved, dataset, network, weights, stages, _identity(resolved, dataset, weights))


def load_weights(config: Config, cache_dir: Path, screen: Screen) -> PretrainedWeights:
    """The pretrained weights of the config's backbone, all of it, so that their digest can be checked."""
    path, backbone = config.model.weights_path, config.model.backbone
    whole = Network(backbone_layers(backbone), (), (NATIVE_SIZE, NATIVE_SIZE, config.dataset.channels))
    return load_pretrained(
        backbone,
        include_classifier=False,
        shapes=all_parameter_shapes(whole),
        cache_dir=cache_dir,
        path=None if path is None else Path(path).expanduser(),
        screen=screen,
    )


def device_text() -> str:
    """Platform, kind and number of the local devices: `cpu × 2`, `gpu NVIDIA H100 × 1`."""
    devices = jax.local_devices()
    kind = devices[0].device_kind
    name = devices[0].platform if kind == devices[0].platform else f"{devices[0].platform} {kind}"
    return f"{name} × {len(devices)}"


def _resolved(config: Config, dataset: Dataset, network: Network) -> Config:
    resolved = config.copy_and_resolve_references()
    height, _, channels = network.input_shape
    resolved.dataset.image_size = height
    resolved.dataset.channels = channels
    resolved.model.preprocessing = network.preprocessing
    resolved.model.output = "sigmoid" if network.outputs == 1 else "softmax"
    return resolved


def _identity(config: Config, dataset: Dataset, weights: PretrainedWeights | None) -> Identity:
    determined_by: dict[str, Any] = {
        "config": digested(config),
        "data": dataset.fingerprint,
        "weights": None if weights is None else weights.sha256,
    }
    return Identity(json_digest(determined_by), code_digest(), versions(), device_text())

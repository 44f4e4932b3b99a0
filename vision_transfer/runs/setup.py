"""What a run starts from: data, network, weights and stages, and the identity that follows from them."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax

from vision_transfer.config import Config, digested
from vision_transfer.data.dataset import Dataset
from vision_transfer.data.load import load_dataset
from vision_transfer.models.network import Network
from vision_transfer.models.pretrained.load import PretrainedWeights
from vision_transfer.runs.build import (
    DataFacts,
    Stage,
    build_network,
    data_request,
    resolve_stages,
    uses_published_weights,
    with_preprocessing_of,
)
from vision_transfer.runs.folder import Identity
from vision_transfer.runs.init_from import starting_weights_of_run
from vision_transfer.runs.initial_weights import load_weights
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.preemption import StopSignal
from vision_transfer.runtime.provenance import code_digest, json_digest, versions


@dataclass(frozen=True)
class RunOptions:
    """What the command line says of a run besides its config.

    Attributes:
        workdir: folder of the run; None for `runs/<name>-<digest>`.
        cache_dir: root of all caches.
        rerun: do a run again whose code, versions or device have changed since.
        reuse: take or continue it nevertheless.
        stop: whether to save and stop now.
        command: the command line, which the report shows; None where the run was not started by one.
        shared_stages: folder of finished stages that runs take from each other; None for a run that trains all of its
            own.
    """

    workdir: Path | None
    cache_dir: Path
    rerun: bool = False
    reuse: bool = False
    stop: StopSignal = field(default_factory=StopSignal)
    command: str | None = None
    shared_stages: Path | None = None


@dataclass(frozen=True)
class Setup:
    """Everything that a run starts from.

    Attributes:
        config: with what follows from the data filled in.
        dataset: decoded.
        network: with the preprocessing of its weights.
        weights: the pretrained ones or those of an earlier run, or None.
        stages: in order.
        identity: of the run.
    """

    config: Config
    dataset: Dataset
    network: Network
    weights: PretrainedWeights | None
    stages: list[Stage]
    identity: Identity


def prepare(config: Config, cache_dir: Path, screen: Screen, kept_start: Path | None = None) -> Setup:
    """Loads data and weights and resolves the config against them.

    Args:
        config: of the run.
        cache_dir: root of all caches.
        screen: for progress, and for what is taken of an earlier run.
        kept_start: where the run keeps a copy of what it took of an earlier one, if its folder is known.

    Raises:
        UserError: a config, data or weights that cannot be used.
    """
    dataset = load_dataset(data_request(config), cache_dir=cache_dir, screen=screen)
    image_shape = dataset.train.images.shape[1:]
    network = build_network(config, DataFacts(len(dataset.classes), image_shape))
    stages = resolve_stages(config, network)
    weights = None
    if config.init_from is not None:
        weights = starting_weights_of_run(config, network, dataset.classes, cache_dir, kept_start, screen)
    elif uses_published_weights(config):
        weights = load_weights(config, cache_dir, screen)
    if weights is not None:
        network = with_preprocessing_of(network, config, weights.preprocessing)
        stages = resolve_stages(config, network)
    resolved = _resolved(config, network)
    return Setup(resolved, dataset, network, weights, stages, _identity(resolved, dataset, weights))


def device_text() -> str:
    """Platform, kind and number of the local devices: `cpu × 2`, `gpu NVIDIA H100 × 1`."""
    devices = jax.local_devices()
    kind = devices[0].device_kind
    name = devices[0].platform if kind == devices[0].platform else f"{devices[0].platform} {kind}"
    return f"{name} × {len(devices)}"


def _resolved(config: Config, network: Network) -> Config:
    height, _, channels = network.input_shape
    output = "sigmoid" if network.outputs == 1 else "softmax"
    return replace(
        config,
        dataset=replace(config.dataset, image_size=height, channels=channels),
        model=replace(config.model, preprocessing=network.preprocessing, output=output),
    )


def _identity(config: Config, dataset: Dataset, weights: PretrainedWeights | None) -> Identity:
    determined_by: dict[str, Any] = {
        "config": digested(config),
        "data": dataset.fingerprint,
        "weights": None if weights is None else weights.sha256,
    }
    return Identity(json_digest(determined_by), code_digest(), versions(), device_text())

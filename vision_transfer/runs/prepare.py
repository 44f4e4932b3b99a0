"""From a config and data to a run: everything that it computes with, and the identity that follows from that."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import jax
from jax.sharding import Mesh

from vision_transfer.config import Config, digested
from vision_transfer.config.own_parts import FOLDER, keep_sources, part, references, with_sources
from vision_transfer.data.dataset import Dataset
from vision_transfer.data.load import load_dataset
from vision_transfer.errors import UserError
from vision_transfer.models.load import initial_variables
from vision_transfer.models.network import Network
from vision_transfer.models.pretrained.hub import on_hub
from vision_transfer.models.pretrained.load import PretrainedWeights
from vision_transfer.runs.build import (
    DataFacts,
    build_network,
    check_preprocessing,
    loads_pretrained_weights,
    resolve_stages,
)
from vision_transfer.runs.folder import Identity, RunFolder, default_folder
from vision_transfer.runs.init_from import starting_weights_of_run
from vision_transfer.runs.initial_weights import load_weights
from vision_transfer.runs.predictions import OutOfFold
from vision_transfer.runtime import hosts
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.devices import global_mesh
from vision_transfer.runtime.files import absolute_path
from vision_transfer.runtime.preemption import StopSignal
from vision_transfer.runtime.provenance import json_digest, running_code_digest, versions
from vision_transfer.runtime.timer import Timer
from vision_transfer.training.stage import Stage, Variables


@dataclass(frozen=True)
class RunOptions:
    """A command's options for a run, besides its config.

    Attributes:
        workdir: folder of the run; None for `runs/<name>-<digest>`.
        cache_dir: root of all caches.
        rerun: do a run again whose code, versions or device have changed since.
        reuse: take or resume it as it is.
        stop: whether to save and stop now.
        command: the command line, which the report shows; None where the run was not started by one.
        shared_stages: folder of finished stages that runs take from each other; None for a run that trains all of its
            own.
        test: False to stop before the test, with `trained.json` (`trained.py`).
        out_of_fold: for a run on the images of all folds: its expected predictions, where the data has no test split.
    """

    workdir: Path | None
    cache_dir: Path
    rerun: bool = False
    reuse: bool = False
    stop: StopSignal = field(default_factory=StopSignal)
    command: str | None = None
    shared_stages: Path | None = None
    test: bool = True
    out_of_fold: OutOfFold | None = None


@dataclass(frozen=True)
class Run:
    """A run: what it computes on, what it computes, and where it goes.

    The config has what follows from the data filled in; the network has the preprocessing of its weights, which are the
    pretrained ones, those of an earlier run, or None; the mesh has all devices of all hosts.
    """

    config: Config
    dataset: Dataset
    network: Network
    weights: PretrainedWeights | None
    stages: list[Stage]
    identity: Identity
    folder: RunFolder
    options: RunOptions
    screen: Screen
    timer: Timer
    mesh: Mesh

    def initial_variables(self) -> Variables:
        """Parameters and running statistics that the first stage starts from."""
        return initial_variables(self.network, self.config.seed, self.weights)


def prepare(config: Config, options: RunOptions, screen: Screen) -> Run:
    """Loads data and weights and resolves the config against them; writes nothing into the run's folder.

    Raises:
        UserError: data or weights that cannot be used, or a config that does not fit them.
    """
    timer = Timer()
    config = with_own_parts(config, options)
    with timer.measures("data"):
        dataset = load_dataset(config.dataset, cache_dir=options.cache_dir, screen=screen)
        if options.test and not len(dataset.test) and options.out_of_fold is None:
            raise UserError(
                f"config.dataset.folds: got {config.dataset.folds}; a single run is tested on one fold, so set "
                "config.dataset.fold too; only the command line does all folds"
            )
        network = build_network(config, DataFacts(len(dataset.classes), dataset.train.image_shape))
        resolve_stages(config, network)  # a freeze spec that does not fit is found before weights are fetched
        weights = _load_weights(config, network, dataset, options, screen)
        if weights is not None and config.model.preprocessing is None:
            network = replace(network, preprocessing=weights.preprocessing)
        check_preprocessing(network)
        resolved = _resolved(config, network)
        identity = _identity(resolved, dataset, weights)
    facts = {"digest of data": dataset.fingerprint, "digest of the run": identity.digest, "device": identity.device}
    hosts.compare("data, weights and devices", facts)
    workdir = options.workdir
    folder = default_folder(config.name, identity.digest) if workdir is None else RunFolder(workdir)
    stages = resolve_stages(config, network)
    return Run(resolved, dataset, network, weights, stages, identity, folder, options, screen, timer, global_mesh())


def with_own_parts(config: Config, options: RunOptions) -> Config:
    """The config with its references tied to files; each is run once here, so that a mistake in it is found at once.

    The cache gets a copy, for the workers of a sweep; the run's folder has one when the run resumes.

    Raises:
        UserError: a file is missing or fails, or the user does not trust it.
    """
    cached = options.cache_dir / FOLDER
    config = with_sources(config, None if options.workdir is None else RunFolder(options.workdir).parts, cached)
    for reference in references(config):
        part(reference)
    keep_sources(config, cached)
    return config


def _load_weights(
    config: Config, network: Network, dataset: Dataset, options: RunOptions, screen: Screen
) -> PretrainedWeights | None:
    if config.init_from is not None:
        kept = None if options.workdir is None else RunFolder(options.workdir).start
        return starting_weights_of_run(config, network, dataset.classes, options.cache_dir, kept, screen)
    if not loads_pretrained_weights(config):
        return None
    return load_weights(config, options.cache_dir, screen, image_size=network.input_shape[0])


def device_text() -> str:
    """Platform, kind and number of the devices of all hosts: `cpu × 2`, `gpu NVIDIA H100 × 8 × 4 hosts`."""
    devices = cast(Any, jax).local_devices()
    kind = devices[0].device_kind
    name = devices[0].platform if kind == devices[0].platform else f"{devices[0].platform} {kind}"
    return f"{name} × {len(devices)}{f' × {cast(Any, jax).process_count()} hosts' if hosts.several() else ''}"


def _resolved(config: Config, network: Network) -> Config:
    """The config with what follows from the data, and with paths that are valid from any current folder."""
    height, _, channels = network.input_shape
    output = "sigmoid" if network.outputs == 1 else "softmax"
    dataset, model = config.dataset, config.model
    return replace(
        config,
        init_from=absolute_or_hub(config.init_from),
        dataset=replace(dataset, image_size=height, channels=channels, root=absolute_or_hub(dataset.root)),
        model=replace(
            model, preprocessing=network.preprocessing, output=output, weights_path=absolute_or_hub(model.weights_path)
        ),
    )


def absolute_or_hub(path: str | None) -> str | None:
    """A path of the user's as an absolute one; a name on the hub, or None, as it is."""
    return path if path is None or on_hub(path) else absolute_path(path)


def _identity(config: Config, dataset: Dataset, weights: PretrainedWeights | None) -> Identity:
    determined_by: dict[str, Any] = {
        "config": digested(config),
        "data": dataset.fingerprint,
        "weights": None if weights is None else weights.sha256,
    }
    return Identity(json_digest(determined_by), running_code_digest(), versions(), device_text())

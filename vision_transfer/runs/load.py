"""A finished run, read back from its folder: its network with the parameters that were tested."""

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from rich.filesize import decimal

from vision_transfer.config import Config, read_config
from vision_transfer.config.own_parts import with_sources
from vision_transfer.errors import UserError
from vision_transfer.models.load import initial_variables
from vision_transfer.models.network import Network, all_parameter_shapes
from vision_transfer.models.pretrained.load import PretrainedWeights
from vision_transfer.runs.build import DataFacts, build_network, loads_pretrained_weights, resolve_stages
from vision_transfer.runs.folder import RunFolder
from vision_transfer.runs.initial_weights import load_initial_weights, load_weights, needs_own_copy
from vision_transfer.runs.manifest import check_files
from vision_transfer.runtime.console import Screen
from vision_transfer.training.loop import trained_stage
from vision_transfer.training.stage import Stage, StageOutcome, Variables, chosen_variables, ends_before, with_weights

FLOAT32_BYTES = 4


@dataclass(frozen=True)
class TrainedRun:
    """A finished run: its stages in order, and `params` and `batch_stats` as they were tested, on the host."""

    folder: RunFolder
    config: Config
    result: dict[str, Any]
    network: Network
    stages: list[Stage]
    variables: Variables

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; a label is a place in this tuple."""
        return tuple(self.result["dataset"]["classes"])


def load_run(path: Path, cache_dir: Path, screen: Screen, *, allow_download: bool = True) -> TrainedRun:
    """Reads a finished run; its data need not be there, but published weights that it started from must.

    Every file of the run is checked against its manifest first. A run that started from an earlier run or a user's file
    has a copy of those weights. `allow_download` lets published ones be fetched that are not in the cache.

    Raises:
        UserError: no run, not finished, damaged, or started from other weights than are found now.
    """
    folder = RunFolder(path)
    folder.check_links()
    config = read_config(folder.config_file)
    result = folder.result()
    if result is None:
        raise UserError(f"{path}: this run is not finished; run the command that started it again to resume it")
    check_files(folder)
    config = with_sources(config, folder.parts)
    classes, sha256 = _facts(folder, result)
    size = config.dataset.image_size
    if size is None:
        raise UserError(f"{folder.config_file}: dataset.image_size is null; a run writes the size of its images there")
    network = build_network(config, DataFacts(classes, (size, size, config.dataset.channels)))
    _check_size(folder, network)
    try:
        weights = _starting_weights(config, folder, network, cache_dir, screen, allow_download)
    except UserError as error:
        raise UserError(f"the run {path} cannot be used without the weights that it started from. {error}") from error
    found = None if weights is None else weights.sha256
    if found != sha256:
        raise UserError(
            f"{folder.result_file}: the run started from weights with sha256 {sha256}; those found now have {found}. "
            "Set model.weights_path in its config.json to the file that it used"
        )
    stages = resolve_stages(config, network)
    variables = initial_variables(network, config.seed, weights)
    starts: list[Variables] = []
    outcomes: list[StageOutcome] = []
    for stage in stages:
        if ends_before(stage, outcomes):
            break
        if outcomes:
            variables = with_weights(variables, outcomes[-1], stage.settings.start_from)
        starts.append(variables)
        outcomes.append(trained_stage(config, network, stage, variables, folder.checkpoints(stage.name)))
    variables = chosen_variables(starts, outcomes, config.evaluate)
    return TrainedRun(folder, config, result, network, stages[: len(outcomes)], _on_host(variables))


def _check_size(folder: RunFolder, network: Network) -> None:
    """Refuses a network that this machine cannot hold, as a stranger's config can describe, before it is made."""
    shapes = all_parameter_shapes(network)
    wanted = FLOAT32_BYTES * sum(math.prod(shape) for layer in shapes.values() for shape in layer.values())
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else wanted
    if wanted > memory:
        raise UserError(
            f"{folder.config_file}: describes a network of {decimal(wanted)}; this machine has {decimal(memory)} of "
            "memory. Use the run on a larger machine, if it really has such a network"
        )


def _starting_weights(
    config: Config, folder: RunFolder, network: Network, cache_dir: Path, screen: Screen, allow_download: bool
) -> PretrainedWeights | None:
    if not needs_own_copy(config):
        return load_weights(config, cache_dir, screen, allow_download) if loads_pretrained_weights(config) else None
    kept = load_initial_weights(folder.start, network)
    if kept is None:
        raise UserError(
            f"{folder.start}: is missing; it holds what the run took of "
            f"{config.init_from or config.model.weights_path}. Remove {folder.result_file.name}, and the run's command "
            "makes both again"
        )
    return kept


def _facts(folder: RunFolder, result: dict[str, Any]) -> tuple[int, str | None]:
    """Number of classes, and the digest of the initial weights."""
    try:
        classes = result["dataset"]["classes"]
        if not isinstance(classes, list) or not all(isinstance(name, str) for name in cast(list[Any], classes)):
            raise ValueError("its classes are no names")
        return len(cast(list[str], classes)), result["weights"]["sha256"]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{folder.result_file}: is damaged or was edited ({error!r}); remove it, and the run's command makes "
            "it again from the checkpoints"
        ) from error


def _on_host(variables: Variables) -> Variables:
    import jax

    return jax.tree.map(np.asarray, variables)

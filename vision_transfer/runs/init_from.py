"""Starting from an earlier run (`config.init_from`): which of its layers fit, what is taken, and what is said of it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from vision_transfer.config import Config
from vision_transfer.errors import UserError
from vision_transfer.models.layers import layer_names, layers_of
from vision_transfer.models.network import Network, all_parameter_shapes
from vision_transfer.models.pretrained.load import PretrainedWeights
from vision_transfer.runs.folder import DIGEST_LENGTH_IN_NAME
from vision_transfer.runs.initial_weights import load_initial_weights, variables_sha256
from vision_transfer.runs.load import TrainedRun, load_run
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.files import user_path

# Tensors that an error shows side by side; the rest is counted.
MESSAGE_LINES = 20
# Names of layers that a line of the table shows; of more, the first and the last.
NAMES_SHOWN = 4
NO_LICENCE = "no other licence than that of its data"


@dataclass(frozen=True)
class Fit:
    """The layers of a run that fit another network, and those that do not.

    Attributes:
        loaded: names of the layers that both have and that are taken.
        initialised: layers of this network that start from random values.
        left_out: layers of the run that are not used.
        problems: `(layer/parameter, shape here, shape in the run)` of what should have been taken and does not fit;
            a side that does not have it is None.
    """

    loaded: tuple[str, ...]
    initialised: tuple[str, ...]
    left_out: tuple[str, ...]
    problems: tuple[tuple[str, tuple[int, ...] | None, tuple[int, ...] | None], ...]


def starting_weights_of_run(
    config: Config, network: Network, classes: tuple[str, ...], cache_dir: Path, kept: Path | None, screen: Screen
) -> PretrainedWeights:
    """The initial weights that a network takes from `config.init_from`; shows a table of them.

    `kept` is the folder where the run keeps a copy of its initial weights, if it was started before and is known.

    Raises:
        UserError: no finished run there, or one that does not fit.
    """
    path = user_path(config.init_from or "")
    if not path.is_dir():
        return _copy_of(path, network, kept, screen)
    try:
        run = load_run(path, cache_dir, screen)
    except UserError as error:
        raise UserError(f"config.init_from: {error}") from error
    whole = config.init_from_layers == "all" or (config.init_from_layers == "auto" and run.classes == classes)
    fit = compare(network, run.network, whole=whole)
    if fit.problems or not fit.loaded:
        raise UserError(_does_not_fit(path, fit, whole=whole))
    params = {layer: run.variables["params"][layer] for layer in fit.loaded}
    batch_stats = {layer: stats for layer, stats in run.variables["batch_stats"].items() if layer in fit.loaded}
    _say(path, run, network, fit, screen)
    _warn_of_differences(config, network, run, fit, screen)
    before = run.result["weights"]
    part = "all layers" if whole else "the backbone"
    return PretrainedWeights(
        params,
        f"{part} of the run {run.config.name}-{run.result['digest'][:DIGEST_LENGTH_IN_NAME]}, initialised from: "
        f"{before['source']}",
        variables_sha256(params, batch_stats),
        run.network.preprocessing,
        before.get("licence") or NO_LICENCE,
        batch_stats,
    )


def compare(here: Network, run: Network, *, whole: bool) -> Fit:
    """Compares the layers of a run's network with another network by name and shape.

    With `whole`, every layer of the run must be taken; otherwise its backbone alone, of which only layers after those
    taken may be left out: without one in between, the others would compute something else.
    """
    shapes, offered = all_parameter_shapes(here), all_parameter_shapes(run)
    if not whole:
        offered = {layer: offered[layer] for layer in layer_names(layers_of(run.backbone)) if layer in offered}
    backbone = layer_names(layers_of(here.backbone))
    wanted = {layer: shapes[layer] for layer in shapes if whole or layer in backbone}
    names = list(offered)
    last = max((names.index(layer) for layer in wanted if layer in offered), default=-1)
    superfluous = [layer for place, layer in enumerate(names) if layer not in wanted and (whole or place < last)]
    problems = [
        (f"{layer}/{parameter}", wanted.get(layer, {}).get(parameter), offered.get(layer, {}).get(parameter))
        for layer in (*wanted, *superfluous)
        for parameter in dict.fromkeys((*wanted.get(layer, {}), *offered.get(layer, {})))
        if wanted.get(layer, {}).get(parameter) != offered.get(layer, {}).get(parameter)
    ]
    return Fit(
        loaded=tuple(wanted),
        initialised=tuple(layer for layer in shapes if layer not in wanted),
        left_out=tuple(layer for layer in all_parameter_shapes(run) if layer not in wanted),
        problems=tuple(problems),
    )


def _copy_of(path: Path, network: Network, kept: Path | None, screen: Screen) -> PretrainedWeights:
    """The copy of its start that a begun run keeps, where the run that it started from is gone."""
    copy = None if kept is None else load_initial_weights(kept, network)
    if copy is None:
        raise UserError(
            f"config.init_from: no such folder: {path}. If it has moved, pass the new path (the run keeps its digest). "
            "If it was deleted, a run that already started from it can resume from its own copy: pass that run's "
            "folder with --workdir"
        )
    screen.say(f"{path} is gone; this run resumes from the copy in {kept}: {copy.source}.", style="yellow")
    return copy


def _say(path: Path, run: TrainedRun, network: Network, fit: Fit, screen: Screen) -> None:
    table = Table.grid(padding=(0, 2), pad_edge=True)
    table.add_column(no_wrap=True)
    table.add_column()
    table.add_column(justify="right", no_wrap=True)
    here, there = all_parameter_shapes(network), all_parameter_shapes(run.network)
    for what, layers, shapes in (
        ("loaded", fit.loaded, here),
        ("initialised", fit.initialised, here),
        ("left out of the run", fit.left_out, there),
    ):
        number = sum(math.prod(shape) for layer in layers for shape in shapes[layer].values())
        table.add_row(what, _named(layers), f"{number:,} parameters" if number else "")
    screen.say(f"Starts from the run {path}", style="bold")
    screen.say(table)


def _warn_of_differences(config: Config, network: Network, run: TrainedRun, fit: Fit, screen: Screen) -> None:
    """Points out what makes other outputs of the same parameters: the input, or an activation or padding."""
    stated = config.model.preprocessing
    if stated is not None and stated != run.network.preprocessing:
        screen.say(
            f"config.model.preprocessing is {stated}, but the run was trained with {run.network.preprocessing} input; "
            "leave it out to keep that",
            style="yellow",
        )
    rows = {layer.name: layer for layer in run.network.layers}
    for layer in network.layers:
        if layer.name in fit.loaded and rows[layer.name] != layer:
            screen.say(f"here {layer}, but in the run {rows[layer.name]}", style="yellow")


def _does_not_fit(path: Path, fit: Fit, *, whole: bool) -> str:
    if not fit.problems:
        return (
            f"config.init_from: {path}: there is nothing to take, since the backbone has no parameters; "
            "--config.init_from_layers=all takes the head too"
        )
    shown = fit.problems[:MESSAGE_LINES]
    rows = [("", "this network", "the run"), *((name, _shape(here), _shape(there)) for name, here, there in shown)]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    lines = [f"  {name:<{widths[0]}}  {here:<{widths[1]}}  {there}".rstrip() for name, here, there in rows]
    if len(fit.problems) > len(shown):
        lines.append(f"  … and {len(fit.problems) - len(shown)} more")
    fix = "Set config.model and config.dataset.image_size as the run has them (its config.json says)"
    if whole:
        fix += "; --config.init_from_layers=backbone takes the backbone alone, with a new head"
    return "\n".join([f"config.init_from: {path}: these do not fit by name and shape", *lines, fix])


def _shape(shape: tuple[int, ...] | None) -> str:
    return "none" if shape is None else str(shape)


def _named(layers: Sequence[str]) -> str:
    if len(layers) <= NAMES_SHOWN:
        return ", ".join(layers) or "none"
    return f"{layers[0]} … {layers[-1]} ({len(layers)} layers)"

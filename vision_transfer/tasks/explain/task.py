"""`--mode=explain`: checks the flags, loads the network and the images, and draws the figures."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from vision_transfer.config import Config
from vision_transfer.config.schema import DatasetConfig
from vision_transfer.data.load import load_dataset
from vision_transfer.errors import UserError, nearest_names
from vision_transfer.predict.temperature import calibration_of
from vision_transfer.runs.load import TrainedRun, load_run
from vision_transfer.runtime.console import Screen
from vision_transfer.tasks.explain.activation_maximization import WAYS, Way
from vision_transfer.tasks.explain.activations import map_layers
from vision_transfer.tasks.explain.draw import (
    FIGURES,
    NEEDS_HEAD,
    NEEDS_IMAGES,
    NEEDS_NETWORK,
    Selection,
    draw_network_figures,
    draw_teaching_figures,
)
from vision_transfer.tasks.explain.images import NamedImage, first_images, read_images
from vision_transfer.tasks.explain.load import LoadedNetwork, network_of_config


@dataclass(frozen=True)
class ExplainFlags:
    """The flags of `--mode=explain`, as given.

    Attributes:
        images: default: some of the data set's test images.
        out: default: `figures/explain` in the run's folder, or `explain`.
        ascent: the way of gradient ascent.
    """

    workdir: Path | None = None
    config: Config | None = None
    images: str | None = None
    out: Path | None = None
    show: str | None = None
    layers: str | None = None
    filters: str | None = None
    ascent: str | None = None
    target: str | None = None


def explain(flags: ExplainFlags, cache_dir: Path, screen: Screen) -> list[Path]:
    """Draws the figures; returns the files written.

    Raises:
        UserError: a flag is wrong, a run is not finished, or no image can be read.
    """
    if flags.workdir is not None and flags.config is not None:
        raise UserError("--mode=explain takes a run (--workdir) or a backbone (--config); give one of them")
    selection = Selection(
        show=_figures(flags),
        layers=tuple(filter(None, (flags.layers or "").split(","))),
        filters=_numbers(flags.filters),
        way=cast(Way, _one_of("--ascent", flags.ascent or WAYS[0], WAYS)),
        target=flags.target,
    )
    show = set(selection.show)
    loaded, run = None, None
    if flags.workdir is not None:
        run = load_run(flags.workdir, cache_dir, screen)
        figures = flags.workdir / "figures" / "explain"
        if flags.show is None and not map_layers(run.network):
            selection = replace(selection, show=("smooth_grad",))
            show = set(selection.show)
        # The likeliest classes of each image are printed, whatever is drawn of them.
        says_classes = bool(show & NEEDS_NETWORK & NEEDS_IMAGES)
        calibration = calibration_of(run, cache_dir, screen) if says_classes else None
        temperature = 1.0 if calibration is None else calibration.temperature
        loaded = LoadedNetwork(run.network, run.variables, run.classes, run.config, figures, temperature)
    config = loaded.config if loaded else flags.config
    if config is None and show & NEEDS_NETWORK:
        raise UserError(
            "--mode=explain needs a network: --workdir=RUN for a finished run, or --config=FILE for its backbone "
            "alone, such as --config=finetune"
        )
    images, data_size = [], None
    if show & NEEDS_IMAGES:
        images, data_size = _images(flags.images, config, run, cache_dir, screen)
    if loaded is None and config is not None and show & NEEDS_NETWORK:
        loaded = network_of_config(config, data_size, bool(show & NEEDS_HEAD), cache_dir, screen)
    out = flags.out or (loaded.figures if loaded else Path("explain"))
    written = draw_teaching_figures(selection.show, images, out)
    if loaded is not None and show & NEEDS_NETWORK:
        written += draw_network_figures(loaded, selection, images, out, screen)
    screen.say(f"{len(written)} figures in {out}")
    return written


def _figures(flags: ExplainFlags) -> tuple[str, ...]:
    if flags.show is None:
        return ("activations", "grad_cam") if flags.workdir is not None else ("activations",)
    return tuple(_one_of("--show", name, FIGURES) for name in flags.show.split(","))


def _images(
    images: str | None, config: Config | None, run: TrainedRun | None, cache_dir: Path, screen: Screen
) -> tuple[list[NamedImage], int | None]:
    """The images, and the common size of those that come from the data set."""
    if images is not None:
        data = DatasetConfig() if config is None else config.dataset
        found, unreadable = read_images(images, data.channels, data.value_range, screen)
        for path, reason in unreadable.items():
            screen.say(f"left out: {path}: {reason}", style="yellow")
        return found, None
    if config is None:
        raise UserError(
            "--mode=explain needs images: --images=FILE, a folder or a pattern; or --config=FILE for those of its data "
            "set"
        )
    try:
        dataset = load_dataset(config.dataset, cache_dir=cache_dir, screen=screen)
    except UserError as error:
        raise UserError(f"no images to explain: {error} Name some by --images=FILE, a folder or a pattern") from error
    if run is not None and run.result["dataset"].get("fingerprint") != dataset.fingerprint:
        # A stranger's run could name any folder of this machine, whose images would be drawn.
        raise UserError(
            f"no images to explain: {dataset.name} is not the data of the run, or has changed since (its fingerprint "
            "differs). Name some by --images=FILE, a folder or a pattern"
        )
    if not len(dataset.test):
        raise UserError(
            f"no images to explain: {dataset.name} has no test split. Name some by --images=FILE, a folder or a pattern"
        )
    screen.say(f"no --images given: using test images of {dataset.name}")
    return first_images(dataset.test, dataset.classes), dataset.test.images.shape[1]


def _one_of(flag: str, name: str, known: tuple[str, ...]) -> str:
    if name not in known:
        raise UserError(f"{flag}: got {name!r}; {nearest_names(name, known)}")
    return name


def _numbers(text: str | None) -> tuple[int, ...] | None:
    """`0-2,8` → 0, 1, 2, 8."""
    if text is None:
        return None
    numbers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        try:
            found = range(int(first), int(last if dash else first) + 1)
        except ValueError as error:
            raise UserError(f"--filters={text}: cannot read {part!r}; write numbers such as 0-15 or 3,8,21") from error
        if not found:
            raise UserError(f"--filters={text}: {part!r} names no filter; write numbers such as 0-15 or 3,8,21")
        numbers += found
    return tuple(dict.fromkeys(numbers))

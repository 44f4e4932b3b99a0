"""`--mode=explain`: reads the flags, opens the network, and draws the windows that are asked for."""

from dataclasses import dataclass
from pathlib import Path
from typing import cast

from rich.markup import escape

from vision_transfer.config import Config
from vision_transfer.data.load import load_dataset
from vision_transfer.errors import UserError, nearest_names
from vision_transfer.runs.build import data_request
from vision_transfer.runtime.console import Screen
from vision_transfer.tasks.explain.activation_maximization import WAYS, Way
from vision_transfer.tasks.explain.images import Picture, pictures_of_classes, read_pictures
from vision_transfer.tasks.explain.model import backbone_subject, run_subject
from vision_transfer.tasks.explain.render import (
    NEEDS_HEAD,
    NEEDS_NETWORK,
    NEEDS_PICTURES,
    WINDOWS,
    View,
    draw_picture_windows,
    network_windows,
)

RGB = 3


@dataclass(frozen=True)
class ExplainFlags:
    """What the command line asks to see.

    Attributes:
        workdir: folder of a finished run, or None.
        config: a config that names a backbone or a data set, or None.
        images: of `--images`; None takes some of the data set's test images.
        out: folder for the figures; None: `figures/explain` in the run's, or `explain`.
        show: of `--show`, names of windows with commas; None: what fits.
        layers: of `--layers`, names with commas; None: what fits the network.
        filters: of `--filters`, such as `0-15` or `3,8`.
        ascent: of `--ascent`, how a filter's image is found.
        target: of `--target`, the class that heat maps speak for; None: the likeliest of each picture.
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
    """Draws the windows; returns the files written.

    Raises:
        UserError: a flag that does not fit, a run that is not finished, no picture that can be read.
    """
    if flags.workdir is not None and flags.config is not None:
        raise UserError("--mode=explain looks into a run (--workdir) or a backbone (--config); give one of them")
    show = _windows(flags)
    way = cast(Way, _one_of("--ascent", flags.ascent or WAYS[0], WAYS))
    filters = _numbers(flags.filters)
    run = run_subject(flags.workdir, cache_dir, screen) if flags.workdir is not None else None
    config = run.config if run else flags.config
    if config is None and set(show) & NEEDS_NETWORK:
        raise UserError(
            "--mode=explain needs a network: --workdir=RUN for a finished run, or --config=FILE for its backbone "
            "alone, such as --config=configs/finetune.py"
        )
    pictures, data_size = [], None
    if set(show) & NEEDS_PICTURES:
        pictures, data_size = _pictures(flags.images, config, cache_dir, screen)
    subject = run
    if run is None and config is not None and set(show) & NEEDS_NETWORK:
        subject = backbone_subject(config, data_size, bool(set(show) & NEEDS_HEAD), cache_dir, screen)
    out = flags.out or (subject.figures if subject else Path("explain"))
    written = draw_picture_windows(show, pictures, out)
    if subject is not None and set(show) & NEEDS_NETWORK:
        view = View(
            subject.network,
            subject.variables,
            subject.classes,
            subject.config.dataset.resampling,
            layers=tuple(filter(None, (flags.layers or "").split(","))),
            filters=filters,
            way=way,
            target=flags.target,
        )
        written += network_windows(view, show, pictures, out, screen)
    screen.say(escape(f"{len(written)} figures in {out}"))
    return written


def _windows(flags: ExplainFlags) -> tuple[str, ...]:
    if flags.show is None:
        return ("activations", "grad_cam") if flags.workdir is not None else ("activations",)
    return tuple(_one_of("--show", name, WINDOWS) for name in flags.show.split(","))


def _pictures(
    images: str | None, config: Config | None, cache_dir: Path, screen: Screen
) -> tuple[list[Picture], int | None]:
    """The pictures, and their common size where they are a data set's."""
    if images is not None:
        pictures, unreadable = read_pictures(images, RGB if config is None else config.dataset.channels)
        for file in unreadable:
            screen.say(escape(f"left out: {file.path}: {file.reason}"), style="yellow")
        return pictures, None
    if config is None:
        raise UserError(
            "--mode=explain needs pictures: --images=FILE, a folder or a pattern; or --config=FILE, whose data set "
            "has some"
        )
    dataset = load_dataset(data_request(config), cache_dir=cache_dir, screen=screen)
    screen.say(escape(f"no --images given, so some test images of {dataset.name}"))
    return pictures_of_classes(dataset.test, dataset.classes), dataset.test.images.shape[1]


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
            numbers += range(int(first), int(last if dash else first) + 1)
        except ValueError as error:
            raise UserError(f"--filters={text}: cannot read {part!r}; write numbers such as 0-15 or 3,8,21") from error
    if not numbers:
        raise UserError(f"--filters={text}: names no filter; write numbers such as 0-15 or 3,8,21")
    return tuple(dict.fromkeys(numbers))

"""Finds the source that a config names, such as a known data set, or tells in an error how to get the data."""

import os
from dataclasses import dataclass
from pathlib import Path

from vision_transfer.config.schema import DatasetConfig
from vision_transfer.data.formats.arrays import embedded_source
from vision_transfer.data.formats.csv_file import csv_source, is_csv
from vision_transfer.data.formats.folder import folder_source, has_splits
from vision_transfer.data.formats.idx import idx_source
from vision_transfer.data.formats.image_files import is_folder, with_value_range
from vision_transfer.data.formats.npz import npz_source
from vision_transfer.data.formats.tfds import NAME, PREFIX, is_tfds, tfds_source
from vision_transfer.data.source import Source
from vision_transfer.errors import UserError, nearest_names
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.files import user_path
from vision_transfer.runtime.program import program

DATA_VARIABLE = "VISION_TRANSFER_DATA"
CLASSIC = "cats_vs_dogs_small"
FETCHED_FOLDER = "datasets"


@dataclass(frozen=True)
class Known:
    """A data set known by name, of the kind `folder`, `idx` or `npz`; without classes, they come with the data.

    Its folders below $VISION_TRANSFER_DATA are in order of preference; packages of the operating system install it in
    `installed`.
    """

    kind: str
    folders: tuple[str, ...]
    classes: tuple[str, ...] | None = None
    installed: tuple[Path, ...] = ()
    how_to_get: str = ""


def _how_to_fetch(name: str, config: str) -> str:
    return f"`{program()} --config={config} --config.dataset.name={name} --mode=fetch` downloads it"


KNOWN = {
    "cats_vs_dogs_small": Known(
        "folder",
        ("cats_vs_dogs_small",),
        how_to_get="`python -m vision_transfer.data.make_subset KAGGLE_TRAIN cats_vs_dogs_small` makes it from "
        "Kaggle's dogs-vs-cats, and " + _how_to_fetch("cats_vs_dogs_small", "recommended") + " in Microsoft's edition",
    ),
    "sign_language_digits": Known(
        "folder",
        ("sign_language_digits",),
        how_to_get="download https://github.com/ardamavi/Sign-Language-Digits-Dataset and split it into train, "
        "validation and test",
    ),
    "mnist": Known("idx", ("mnist",), tuple("0123456789"), how_to_get=_how_to_fetch("mnist", "mnist")),
    "fashion_mnist": Known(
        "idx",
        ("fashion_mnist",),
        ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        installed=(Path("/usr/share/datasets/fashion-mnist"),),
        how_to_get=_how_to_fetch("fashion_mnist", "fashion_mnist")
        + ", and Debian has it as the package dataset-fashion-mnist",
    ),
    "cifar10": Known(
        "npz",
        ("cifar10", "cifar10_subset"),
        ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        how_to_get=_how_to_fetch("cifar10", "cifar10"),
    ),
}
NAMES = ("auto", "folder", "csv", "embedded", "idx", "npz", *KNOWN)


def find_source(config: DatasetConfig, cache_dir: Path, screen: Screen) -> Source:
    """The source for the name, root and range of values of a config.

    Raises:
        UserError: an unknown name, a missing root, or no data there.
    """
    return with_value_range(_find(config, cache_dir, screen), config.value_range)


def _find(config: DatasetConfig, cache_dir: Path, screen: Screen) -> Source:
    name, root = config.name, None if config.root is None else user_path(config.root)
    if name == "auto":
        return _automatic(root, cache_dir, screen, config.grouped_by)
    if name == "embedded":
        return embedded_source()
    if is_tfds(name):
        return tfds_source(config, cache_dir, screen)
    if name in KNOWN:
        return _known(name, root, cache_dir, screen, config.grouped_by)
    if name not in NAMES:
        raise UserError(f"--config.dataset.name is {name!r}: {nearest_names(name, [*NAMES, NAME, PREFIX + 'NAME'])}")
    if root is None:
        raise UserError(f"--config.dataset.root is empty; --config.dataset.name={name} needs the path of the data.")
    return _read(name, root, None, None, cache_dir, screen, config.grouped_by)


def data_folder() -> Path | None:
    """The folder in the environment variable VISION_TRANSFER_DATA, if it is set."""
    value = os.environ.get(DATA_VARIABLE)
    return user_path(value) if value else None


def fetched_folder(name: str, cache_dir: Path) -> Path:
    """The folder to which `--mode=fetch` downloads a data set."""
    return cache_dir / FETCHED_FOLDER / name


def _read(
    kind: str,
    root: Path,
    name: str | None,
    classes: tuple[str, ...] | None,
    cache_dir: Path,
    screen: Screen,
    group: str | None = None,
) -> Source:
    if kind == "csv" or (kind == "folder" and is_csv(root)):
        return csv_source(root, screen, group, cache_dir)
    if kind == "folder":
        return folder_source(root, screen, cache_dir)
    if kind == "npz":
        return npz_source(root, name, classes)
    if not is_folder(root):
        raise UserError(f"--config.dataset.root: there is no folder {root}. Give the folder of the IDX files.")
    return idx_source(root, name or root.resolve().name, classes)


def _known(name: str, root: Path | None, cache_dir: Path, screen: Screen, group: str | None) -> Source:
    known = KNOWN[name]
    data = data_folder()
    below = [data / folder for folder in known.folders] if data is not None else []
    places = [*below, *known.installed, fetched_folder(name, cache_dir)] if root is None else [root]
    place = root or next((place for place in places if is_folder(place)), None)
    if place is None:
        looked = ", ".join(str(place) for place in places)
        raise UserError(
            f"--config.dataset.name={name}: it is not on this machine (looked in {looked}; ${DATA_VARIABLE} or "
            f"--config.dataset.root may name other places). To get it: {known.how_to_get}."
        )
    shown = place.name if place.name in known.folders else name
    return _read(known.kind, place, shown, known.classes, cache_dir, screen, group)


def _automatic(root: Path | None, cache_dir: Path, screen: Screen, group: str | None = None) -> Source:
    """The data in `root`, if given; else `cats_vs_dogs_small` if it is there; else the embedded digits."""
    if root is not None:
        inside = root / CLASSIC
        place = inside if is_folder(inside) and not has_splits(root) else root
        return _read("folder", place, None, None, cache_dir, screen, group)
    data = data_folder()
    if data is not None and is_folder(data / CLASSIC):
        use_embedded = "--config.dataset.name=embedded uses the embedded digits instead."
        return folder_source(data / CLASSIC, screen, cache_dir).with_note(use_embedded)
    where = f"${DATA_VARIABLE} ({data}) has no folder {CLASSIC}" if data else f"${DATA_VARIABLE} is not set"
    return embedded_source().with_note(
        f"{where}. For cats and dogs: {KNOWN[CLASSIC].how_to_get}; then set --config.dataset.root, which may be "
        "any folder of class folders."
    )

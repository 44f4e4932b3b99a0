"""Data sets known by name: their usual folders, their class names, and how to get them."""

from dataclasses import dataclass
from pathlib import Path

FETCHED_FOLDER = "datasets"


@dataclass(frozen=True)
class Known:
    """A data set known by name.

    Attributes:
        kind: `folder`, `idx` or `npz`.
        folders: its names below $VISION_TRANSFER_DATA, in order of preference.
        classes: class names; None if they come with the data.
        installed: folders where packages of the operating system install it.
        how_to_get: for the error message if it is not found.
    """

    kind: str
    folders: tuple[str, ...]
    classes: tuple[str, ...] | None = None
    installed: tuple[Path, ...] = ()
    how_to_get: str = ""


_FETCH = "`python launch.py --config.dataset.name={name} --mode=fetch` downloads it"

KNOWN = {
    "cats_vs_dogs_small": Known(
        "folder",
        ("cats_vs_dogs_small",),
        how_to_get="`python -m vision_transfer.data.make_subset KAGGLE_TRAIN cats_vs_dogs_small` makes it from "
        "Kaggle's dogs-vs-cats, and " + _FETCH.format(name="cats_vs_dogs_small") + " in Microsoft's edition",
    ),
    "sign_language_digits": Known(
        "folder",
        ("sign_language_digits",),
        how_to_get="download https://github.com/ardamavi/Sign-Language-Digits-Dataset and split it into train, "
        "validation and test",
    ),
    "mnist": Known("idx", ("mnist",), tuple("0123456789"), how_to_get=_FETCH.format(name="mnist")),
    "fashion_mnist": Known(
        "idx",
        ("fashion_mnist",),
        ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        installed=(Path("/usr/share/datasets/fashion-mnist"),),
        how_to_get=_FETCH.format(name="fashion_mnist") + ", and Debian has it as the package dataset-fashion-mnist",
    ),
    "cifar10": Known(
        "npz",
        ("cifar10", "cifar10_subset"),
        ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        how_to_get=_FETCH.format(name="cifar10"),
    ),
}


def known_places(name: str, data: Path | None, cache_dir: Path) -> list[Path]:
    """Folders that may contain a known data set, in the order in which they are searched."""
    known = KNOWN[name]
    below = [data / folder for folder in known.folders] if data is not None else []
    return [*below, *known.installed, fetched_folder(name, cache_dir)]


def fetched_folder(name: str, cache_dir: Path) -> Path:
    """The folder to which `--mode=fetch` downloads a data set."""
    return cache_dir / FETCHED_FOLDER / name

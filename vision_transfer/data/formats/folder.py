"""Images in class folders: `ROOT/train/cat/cat.0.jpg`, and likewise `validation` (or `valid`, `val`) and `test`.

Missing splits are held out of `train` when the source is loaded; a folder without splits has `ROOT/cat/cat.0.jpg`.
"""

from collections.abc import Mapping
from pathlib import Path

from vision_transfer.data.dataset import SPLIT_NAMES, SPLITS, Skipped
from vision_transfer.data.formats.image_files import Named, display, files_source, is_folder, relative, walk
from vision_transfer.data.source import Source
from vision_transfer.errors import UserError
from vision_transfer.runtime.console import Screen

# Names that suggest a split, in lower case; as names of classes they are a mistake.
LIKE_SPLITS = frozenset(
    {"training", "trainset", "train_set", "validate", "valid_set", "val_set", "valset", "dev", "eval", "evaluation"}
    | {"testing", "testset", "test_set"}.union(*SPLIT_NAMES.values())
)
LAYOUT = (
    "ROOT/CLASS/*.jpg, or already split ROOT/train/CLASS/*.jpg, ROOT/validation/CLASS/*.jpg (or valid, val) and "
    "ROOT/test/CLASS/*.jpg"
)
_NAMED_IN_ERRORS = 8


def folder_source(root: Path, screen: Screen) -> Source:
    """Finds and digests all files in the class folders below `root`; decodes nothing.

    Raises:
        UserError: no such folder, no class folders, or a class missing from a split.
    """
    split_folders = _split_folders(root)
    classes = _classes(split_folders)
    named: dict[str, list[Named]] = {}
    skipped: list[Skipped] = []
    for split, folder in split_folders.items():
        found = [(label, *item) for label, name in enumerate(classes) for item in walk(folder / name)]
        named[split] = [Named(path, relative(path, root), label) for label, path, problem in found if problem is None]
        skipped += [Skipped(relative(path, root), problem) for _, path, problem in found if problem is not None]
    return files_source(
        root.resolve().name,
        tuple(display(name) for name in classes),
        named,
        note=f"images of the folder {display(str(root))}.",
        expected=LAYOUT,
        skipped=skipped,
        screen=screen,
    )


def has_splits(root: Path) -> bool:
    """Whether `root` has a folder `train`."""
    return is_folder(root / "train")


def looks_like_split(name: str) -> bool:
    """Whether the name of a class suggests that it is a split."""
    return name.lower().replace("-", "_").replace(" ", "_") in LIKE_SPLITS


def beside_splits(root: Path) -> list[str]:
    """Folders next to `train` that are not splits, so that nothing reads them; none in a folder without splits."""
    if not has_splits(root):
        return []
    splits = {name for names in SPLIT_NAMES.values() for name in names}
    return sorted(display(name) for name in _folders_in(root) - splits)


def _split_folders(root: Path) -> dict[str, Path]:
    """The folder of each existing split; without any, `root` is the folder of `train`."""
    shown = display(str(root))
    if not is_folder(root):
        raise UserError(f"--config.dataset.root: there is no folder {shown}. Give an existing folder with {LAYOUT}.")
    present = _folders_in(root)
    found = {split: [name for name in names if name in present] for split, names in SPLIT_NAMES.items()}
    for split, names in found.items():
        if len(names) > 1:
            raise UserError(
                f"--config.dataset.root: {shown} has several {split} folders ({', '.join(names)}). Keep one of them."
            )
    if found["train"]:
        return {split: root / found[split][0] for split in SPLITS if found[split]}
    like_splits = sorted(name for name in present if looks_like_split(name))
    if like_splits and (any(found.values()) or len(like_splits) == len(present)):
        raise UserError(
            f"--config.dataset.root: {shown} has no folder train (it contains {_listed(present)}). Splits are "
            f"folders with these names: train, validation (or valid, val) and test. Expected {LAYOUT}."
        )
    return {"train": root}


def _classes(split_folders: Mapping[str, Path]) -> tuple[str, ...]:
    """The sorted class names, which must be the same in every split."""
    by_split = {split: _folders_in(folder) for split, folder in split_folders.items()}
    every = sorted(set().union(*by_split.values()))
    if not every:
        raise UserError(
            f"--config.dataset.root: no class folders in {display(str(split_folders['train']))}. Expected {LAYOUT}."
        )
    for split, names in by_split.items():
        missing = [name for name in every if name not in names]
        if missing:
            raise UserError(
                f"--config.dataset.root: {display(str(split_folders[split]))} has no folder for the class "
                f"{display(missing[0])}, which another split has. Every class must be in every split."
            )
    if len(every) < 2:
        raise UserError(
            f"--config.dataset.root: {display(str(split_folders['train']))} has only the class {display(every[0])}. "
            f"At least two classes are needed; expected {LAYOUT}."
        )
    return tuple(every)


def _folders_in(folder: Path) -> set[str]:
    """Names of the visible folders in a folder."""
    try:
        return {entry.name for entry in folder.iterdir() if not entry.name.startswith(".") and entry.is_dir()}
    except OSError as error:
        raise UserError(f"--config.dataset.root: {display(str(folder))} cannot be read: {error.strerror}.") from None


def _listed(names: set[str]) -> str:
    shown = [display(name) for name in sorted(names)[:_NAMED_IN_ERRORS]]
    return ", ".join(shown + ["…"] * (len(names) > _NAMED_IN_ERRORS)) or "no folder"

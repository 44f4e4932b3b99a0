"""Images in class folders: `ROOT/train/cat/cat.0.jpg`, and likewise `validation` (or `valid`, `val`) and `test`.

Splits that are not there are held out of `train` by whoever loads the source; without any, `ROOT/cat/cat.0.jpg` will
do.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from vision_transfer.data.dataset import SPLITS, Skipped
from vision_transfer.data.formats.image_files import Named, display, is_folder, read_examples, relative, walk
from vision_transfer.data.source import Examples, Source
from vision_transfer.errors import UserError
from vision_transfer.runtime.console import Screen

SPLIT_FOLDERS = {"train": ("train",), "validation": ("validation", "valid", "val"), "test": ("test",)}
# Other names of such folders, in small letters; as names of classes they are a mistake.
LIKE_SPLITS = frozenset(
    {"training", "trainset", "train_set", "validate", "valid_set", "val_set", "valset", "dev", "eval", "evaluation"}
    | {"testing", "testset", "test_set"}.union(*SPLIT_FOLDERS.values())
)
# That VGG's weights were trained with (arXiv:1409.1556, section 3.1).
DEFAULT_SIZE = 224
LAYOUT = (
    "ROOT/CLASS/*.jpg, or split already ROOT/train/CLASS/*.jpg, ROOT/validation/CLASS/*.jpg (or valid, val) and "
    "ROOT/test/CLASS/*.jpg"
)
# How many of a folder's entries an error message names.
_NAMED_IN_ERRORS = 8


def folder_source(root: Path, screen: Screen) -> Source:
    """Finds and hashes all files under `root`'s class folders; decodes nothing.

    Raises:
        UserError: no such folder, no class folders, or a class missing from a split.
    """
    split_folders = _split_folders(root)
    classes = _classes(split_folders)
    splits: dict[str, Examples] = {}
    skipped: list[Skipped] = []
    content = hashlib.blake2b(digest_size=16)
    for split, folder in split_folders.items():
        splits[split], left_out = _find_files(root, folder, classes, screen)
        # In the order of the names, which `fingerprint` adds: so both together say which name has which bytes.
        content.update(b"".join(splits[split].contents))
        skipped.extend(left_out)
    return Source(
        name=root.resolve().name,
        classes=tuple(display(name) for name in classes),
        splits=splits,
        content=content.hexdigest(),
        default_size=DEFAULT_SIZE,
        skipped=tuple(skipped),
        note=f"images of the folder {display(str(root))}.",
        expected=LAYOUT,
        has_near_duplicates=True,
    )


def has_splits(root: Path) -> bool:
    """Whether `root` itself has a folder `train`."""
    return is_folder(root / "train")


def looks_like_split(name: str) -> bool:
    """Whether a class has a name that a split would have."""
    return name.lower().replace("-", "_").replace(" ", "_") in LIKE_SPLITS


def beside_splits(root: Path) -> list[str]:
    """Folders that stand beside `train` and are no splits, so that nothing reads them; none in an unsplit folder."""
    if not has_splits(root):
        return []
    splits = {name for names in SPLIT_FOLDERS.values() for name in names}
    return sorted(display(name) for name in _folders_in(root) - splits)


def _split_folders(root: Path) -> dict[str, Path]:
    """The folder of each split that exists; `root` itself as that of `train` where there is none."""
    shown = display(str(root))
    if not is_folder(root):
        raise UserError(f"--config.dataset.root: there is no folder {shown}. Give an existing one that holds {LAYOUT}.")
    present = _folders_in(root)
    found = {split: [name for name in names if name in present] for split, names in SPLIT_FOLDERS.items()}
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
            f"--config.dataset.root: {shown} has no folder train (it holds {_listed(present)}). Splits are read from "
            f"folders of these names: train, validation (or valid, val) and test. Expected {LAYOUT}."
        )
    return {"train": root}


def _classes(split_folders: Mapping[str, Path]) -> tuple[str, ...]:
    """The class names, sorted, which must be the same in every split."""
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
            f"--config.dataset.root: {display(str(split_folders['train']))} has the class {display(every[0])} only. "
            f"At least two classes are needed; expected {LAYOUT}."
        )
    return tuple(every)


def _folders_in(folder: Path) -> set[str]:
    """Names of the visible folders in one."""
    try:
        return {entry.name for entry in folder.iterdir() if not entry.name.startswith(".") and entry.is_dir()}
    except OSError as error:
        raise UserError(f"--config.dataset.root: {display(str(folder))} cannot be read: {error.strerror}.") from None


def _find_files(root: Path, folder: Path, classes: tuple[str, ...], screen: Screen) -> tuple[Examples, list[Skipped]]:
    """All files of one split in the order of class and name, hashed; and those that cannot be read."""
    named, skipped = [], []
    for label, name in enumerate(classes):
        for path, problem in walk(folder / name):
            if problem is None:
                named.append(Named(path, relative(path, root), label))
            else:
                skipped.append(Skipped(relative(path, root), problem))
    examples, unreadable = read_examples(named, f"Reading {folder.name}", screen)
    return examples, skipped + unreadable


def _listed(names: set[str]) -> str:
    shown = [display(name) for name in sorted(names)[:_NAMED_IN_ERRORS]]
    return ", ".join(shown + ["…"] * (len(names) > _NAMED_IN_ERRORS)) or "no folder"

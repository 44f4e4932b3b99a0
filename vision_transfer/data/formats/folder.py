"""Images in class folders: `ROOT/train/cat/cat.0.jpg`, and likewise `validation` and `test`.

Splits may have other names (`SPLIT_NAMES`), in any case. Missing ones are held out of `train` when the source is
loaded; a folder without splits has `ROOT/cat/cat.0.jpg`.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from vision_transfer.data.dataset import SPLITS, Skipped, split_named
from vision_transfer.data.formats.class_names import check_not_alike, class_name, quoted
from vision_transfer.data.formats.image_files import (
    Listed,
    display,
    files_source,
    is_folder,
    is_passed_over,
    may_be_image,
    refuse_pseudo_folder,
    shown_below,
    stamps_file,
    walk,
)
from vision_transfer.data.images.recognise import ARCHIVES
from vision_transfer.data.source import Source
from vision_transfer.errors import UserError
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.file_stamps import Files

# Names that suggest a split but do not tell which; as names of classes they are a mistake too.
UNCLEAR_SPLITS = frozenset({"eval", "evaluation", "holdout", "unlabeled", "unlabelled"})
LAYOUT = (
    "ROOT/CLASS/*.jpg, or already split ROOT/train/CLASS/*.jpg, ROOT/validation/CLASS/*.jpg (or valid, val, dev) and "
    "ROOT/test/CLASS/*.jpg (or testing)"
)
_NAMED_IN_ERRORS = 8
_WHERE = "--config.dataset.root"

# The folder of each class in each split.
ClassFolders = Mapping[str, Mapping[str, Path]]


def folder_source(root: Path, screen: Screen, cache_dir: Path | None = None) -> Source:
    """Finds and digests all images in the class folders below `root`; decodes nothing.

    With a cache, files that have not changed since are not read again.

    Raises:
        UserError: no such folder, no class folders, a class missing from a split, or names of classes that look alike.
    """
    splits = _split_folders(root)
    folders = {split: _class_folders(folder) for split, folder in splits.items()}
    classes = _classes(splits, folders)
    skipped: list[Skipped] = []

    def list_files(split: str) -> Listed:
        def found() -> Iterator[Files]:
            for label, name in enumerate(classes):
                folder = folders[split][name]
                for start, names, others in walk(folder):
                    listed.files.extend(shown_below(folder, root, start, names))
                    listed.labels.extend([label] * len(names))
                    skipped.extend(Skipped(shown_below(folder, root, path, [""])[0], why) for path, why in others)
                    yield start, names

        listed = Listed(found())
        return listed

    return files_source(
        root.resolve().name,
        classes,
        {split: list_files(split) for split in splits},
        note=f"images of the folder {display(str(root))}.",
        expected=LAYOUT,
        skipped=skipped,
        warnings=[*_not_read(root, splits), *_equal_levels(folders)],
        screen=screen,
        stamps=stamps_file(cache_dir, root),
    )


def has_splits(root: Path) -> bool:
    """Whether a folder has a split of training images, and not only a class of that name."""
    return bool(_split_names(_folders_in(root), root))


def looks_like_split(name: str) -> bool:
    """Whether the name of a class suggests that it is a split."""
    return split_named(name) is not None or name.strip().lower() in UNCLEAR_SPLITS


def _split_folders(root: Path) -> dict[str, Path]:
    """The folder of each existing split; without any, `root` is the folder of `train`."""
    shown = display(str(root))
    if not is_folder(root):
        raise UserError(f"{_WHERE}: there is no folder {shown}{_what_is_there(root)}. Expected {LAYOUT}.")
    refuse_pseudo_folder(root, _WHERE)
    present = _folders_in(root)
    found = _split_names(present, root)
    for split, names in found.items():
        if len(names) > 1:
            listed = ", ".join(map(display, names))
            raise UserError(f"{_WHERE}: {shown} has several {split} folders ({listed}). Keep one of them.")
    if found:
        return {split: root / found[split][0] for split in SPLITS if split in found}
    like_splits = {name for name in present if looks_like_split(name)}
    if like_splits and (like_splits == present or any(_folders_in(root / name) for name in like_splits)):
        raise UserError(
            f"{_WHERE}: {shown} has no folder train (it contains {_listed(present)}). Splits are folders with these "
            f"names: train, validation (or valid, val, dev) and test (or testing). Expected {LAYOUT}."
        )
    return {"train": root}


def _split_names(present: set[str], root: Path) -> dict[str, list[str]]:
    """The names of the folders of each split, or nothing if there is no training split.

    A folder `train` without folders in it, and without another split beside it, is a class (of vehicles, perhaps). Of
    several folders of a split those without folders in them do not count.
    """
    found: dict[str, list[str]] = {}
    for name in sorted(present):
        if (split := split_named(name)) is not None:
            found.setdefault(split, []).append(name)
    full = {split: [name for name in names if _folders_in(root / name)] for split, names in found.items()}
    if "train" not in found or not (full["train"] or len(found) > 1):
        return {}
    return {split: full[split] or names for split, names in found.items()}


def _class_folders(folder: Path) -> dict[str, Path]:
    """The folders in a split's folder by the class that each is named after."""
    found: dict[str, Path] = {}
    for name in sorted(_folders_in(folder)):
        other = found.setdefault(class_name(name), folder / name)
        if other.name != name:
            raise UserError(
                f"{_WHERE}: {display(str(folder))} has the folders {quoted(other.name)} and {quoted(name)}, whose "
                "names differ only in blanks at their ends or in the encoding of accents. Merge them, or rename one."
            )
    return found


def _classes(splits: Mapping[str, Path], folders: ClassFolders) -> tuple[str, ...]:
    """The sorted class names, which must be the same in every split."""
    every = sorted(set().union(*folders.values()))
    if not every:
        where = display(str(splits["train"]))
        raise UserError(f"{_WHERE}: no class folders in {where}{_images_in(splits['train'])}. Expected {LAYOUT}.")
    check_not_alike(every, _WHERE)
    for split, present in folders.items():
        where = display(str(splits[split]))
        if not present and split != "train" and _loose_images(splits[split]):
            raise UserError(
                f"{_WHERE}: the images in {where} are in no class folders. If nobody labelled them (as in Kaggle's "
                f"test sets), move that folder elsewhere: the {split} images are then held out of train, and "
                "--mode=predict --images=FOLDER classifies those. If they are labelled, put them in a folder per class."
            )
        missing = [name for name in every if name not in present]
        if missing:
            raise UserError(
                f"{_WHERE}: {where} has no folder for the class {missing[0]}, which another split has. Every class "
                "must be in every split."
            )
    if len(every) < 2:
        raise UserError(
            f"{_WHERE}: {display(str(splits['train']))} has only the class {every[0]}. At least two classes are "
            f"needed; expected {LAYOUT}."
        )
    return tuple(every)


def _not_read(root: Path, splits: Mapping[str, Path]) -> Iterator[str]:
    """Sentences about what lies in the folder and is not read."""
    places = [root, *splits.values()] if root not in splits.values() else [root]
    if root not in splits.values():
        for name in sorted(_folders_in(root) - {folder.name for folder in splits.values()}):
            yield f"the folder {display(name)} is beside {splits['train'].name} and is not read"
    for place in places:
        loose = _loose_images(place)
        if loose:
            count = f"{len(loose):,} image files" if len(loose) > 1 else "1 image file"
            name = display(place.resolve().name)
            yield f"{count} in {name} outside of the class folders: not read (such as {loose[0]})"


def _equal_levels(folders: ClassFolders) -> Iterator[str]:
    """A sentence if the training folders of all classes hold folders of the same names: these may be the classes."""
    below = {name: _folders_in(folder) for name, folder in folders["train"].items()}
    same = set.intersection(*below.values())
    if len(same) > 1:
        outer, inner = ", ".join(list(below)[:3]), _listed(same)
        yield (
            f"the classes are {outer}{', …' if len(below) > 3 else ''}, and each has the folders {inner}: if those are "
            "the classes, move them up one level, or list the images in a CSV file"
        )


def _loose_images(folder: Path) -> list[str]:
    """Names of the files directly in a folder that may be images."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return []
    files = [entry for entry in entries if not is_passed_over(entry.name) and not _leads_to_folder(entry)]
    return [display(entry.name) for entry in files if may_be_image(Path(entry))]


def _images_in(folder: Path) -> str:
    loose = _loose_images(folder)
    return f" but {len(loose):,} image files (such as {loose[0]}), and nothing says their classes" if loose else ""


def _what_is_there(root: Path) -> str:
    """A description of what is at a path that is no folder, for a message."""
    if not os.path.isfile(root):  # noqa: PTH113 (Path.is_file raises an error for a name that is too long)
        return ""
    if root.name.lower().endswith(ARCHIVES):
        return "; the file of that name is an archive: unpack it, and give the folder with its images"
    return "; it is a file. Give the folder that has a folder of images for each class, or a CSV file that lists them"


def _folders_in(folder: Path) -> set[str]:
    """Names of the folders in a folder that are not passed over."""
    try:
        return {
            entry.name for entry in os.scandir(folder) if not is_passed_over(entry.name) and _leads_to_folder(entry)
        }
    except OSError as error:
        raise UserError(f"{_WHERE}: {display(str(folder))} cannot be read: {error.strerror}.") from None


def _leads_to_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # such as a link to itself
        return False


def _listed(names: set[str]) -> str:
    shown = [display(name) for name in sorted(names)[:_NAMED_IN_ERRORS]]
    return ", ".join(shown + ["…"] * (len(names) > _NAMED_IN_ERRORS)) or "no folder"

"""The image files that the user names: a file, all images below a folder, or a pattern."""

import glob
import os
from collections.abc import Iterator
from pathlib import Path

from vision_transfer.data.formats.image_files import (
    display,
    is_folder,
    is_passed_over,
    may_be_image,
    refuse_pseudo_folder,
    walk,
)
from vision_transfer.errors import UserError
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.files import user_path


def find_images(images: str, screen: Screen | None = None) -> list[str]:
    """Paths of the images that `--images` names, sorted; a screen is told what a folder has besides.

    It is a file; a folder, for all files at any depth that start like an image or are named like one (the user can name
    any other file itself); or a shell pattern, in which `**` matches folders at any depth but no links to folders.
    Hidden and system files count only where they are named. A file or folder of exactly that name takes precedence over
    the pattern.

    Raises:
        UserError: nothing matches.
    """
    path = user_path(images)
    if is_folder(path):
        refuse_pseudo_folder(path, "--images")
        found, others = sorted_files(path)
        problem = "no image is below this folder" + (f", only {_counted(others)}" if others else "")
        if found and others and screen is not None:
            screen.say(f"passed over: {_counted(others)}", style="yellow")
    elif os.path.lexists(path):
        return [str(path)]
    else:
        try:
            found = sorted(_matching(path))
        except ValueError as error:
            raise UserError(f"--images={display(images)}: {error}; write **/ for folders at any depth") from error
        problem = "there is no such file or folder, and no file matches it as a pattern"
    if not found:
        raise UserError(f"--images={display(images)}: {problem}")
    return found


def sorted_files(folder: Path) -> tuple[list[str], list[str]]:
    """Paths of all files below a folder that are not hidden or the system's: those that may be images, and the rest."""
    files: tuple[list[str], list[str]] = [], []
    for start, names, others in walk(folder):
        for path in sorted([*(start + name for name in names), *(path for path, _ in others)]):
            files[not may_be_image(Path(path))].append(path)
    return files


def _counted(others: list[str]) -> str:
    if len(others) == 1:
        return f"1 file that is no image ({display(others[0])})"
    return f"{len(others):,} files that are no images, such as {display(others[0])}"


def _matching(pattern: Path) -> Iterator[str]:
    """Paths of all files that a pattern matches; hidden and system files only if the pattern names such a part."""
    root, rest = Path(), pattern.parts
    # A part that is the name of a folder, such as `photos [1]`, means that folder.
    while rest and (not glob.has_magic(rest[0]) or os.path.lexists(root / rest[0])):
        root, rest = root / rest[0], rest[1:]
    if not rest:
        return
    below = rest if rest[-1] != "**" else (*rest, "*")
    named = any(is_passed_over(part) for part in rest)
    for path in root.glob("/".join(below)):
        seen = named or not any(is_passed_over(part) for part in path.relative_to(root).parts)
        if seen and not is_folder(path):
            yield str(path)

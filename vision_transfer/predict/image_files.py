"""The image files that the user names: a file, all images below a folder, or a pattern."""

import glob
import os
from collections.abc import Iterator
from pathlib import Path

from vision_transfer.data.formats.image_files import display, is_folder, walk
from vision_transfer.errors import UserError

# Other files below a folder are ignored; the user can name such a file itself.
IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff"))
# A line break in a file name would split a row of a table.
_LINE_BREAKS = str.maketrans({"\n": "\\n", "\r": "\\r"})


def find_images(images: str) -> list[str]:
    """Paths of the images that `--images` names, sorted; no file is opened.

    It is a file; a folder, for all visible files with an image's suffix at any depth; or a shell pattern, in which `**`
    matches folders at any depth but no links to folders. A file of exactly that name takes precedence over the pattern.

    Raises:
        UserError: nothing matches.
    """
    path = Path(images).expanduser()
    if is_folder(path):
        found = images_below(path)
        problem = f"no files that end in {', '.join(sorted(IMAGE_SUFFIXES))} are below this folder"
    elif os.path.lexists(path):
        return [str(path)]
    else:
        found = sorted(_matching(path))
        problem = "there is no such file or folder, and no file matches it as a pattern"
    if not found:
        raise UserError(f"--images={display(images)}: {problem}")
    return found


def images_below(folder: Path) -> list[str]:
    """Paths of all visible files below a folder that have an image's suffix, in a fixed order."""
    return [str(path) for path, _ in walk(folder) if path.suffix.lower() in IMAGE_SUFFIXES]


def _matching(pattern: Path) -> Iterator[str]:
    """Paths of all files that a pattern matches; hidden ones only if the pattern names a hidden part."""
    first = next((place for place, part in enumerate(pattern.parts) if glob.has_magic(part)), None)
    if first is None:
        return
    root, rest = Path(*pattern.parts[:first]), pattern.parts[first:]
    below = rest if rest[-1] != "**" else (*rest, "*")
    hidden = any(part.startswith(".") for part in rest)
    for path in root.glob("/".join(below)):
        visible = hidden or not any(part.startswith(".") for part in path.relative_to(root).parts)
        if visible and not is_folder(path):
            yield str(path)


def shown(path: str) -> str:
    """A path as one line of text, whatever bytes it consists of."""
    return display(path).translate(_LINE_BREAKS)

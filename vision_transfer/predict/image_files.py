"""Which pictures a user means: a file, all images below a folder, or a pattern."""

import glob
import os
from collections.abc import Iterator
from pathlib import Path

from vision_transfer.data.formats.image_files import display, is_folder, walk
from vision_transfer.errors import UserError

# Below a folder everything else is left alone; who means another file names it.
IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff"))
# Row ends in a file name would tear a line of a table.
_ROW_ENDS = str.maketrans({"\n": "\\n", "\r": "\\r"})


def find_pictures(images: str) -> list[str]:
    """Paths of the pictures that `--images` stands for, in the order of their names.

    Only names are held. Whether a file is a picture shows when it is decoded.

    Args:
        images: a file; a folder, of which all visible files with an image's suffix are taken, however deep; or a
            pattern as shells have them, in which `**` stands for folders however deep, but no links to folders. A file
            of that very name comes before the pattern.

    Raises:
        UserError: nothing is there.
    """
    path = Path(images).expanduser()
    if is_folder(path):
        found = pictures_below(path)
        wanted = f"no files that end in {', '.join(sorted(IMAGE_SUFFIXES))} are below this folder"
    elif os.path.lexists(path):
        return [str(path)]
    else:
        found = sorted(_matching(path))
        wanted = "there is no such file or folder, and as a pattern it matches no file"
    if not found:
        raise UserError(f"--images={display(images)}: {wanted}")
    return found


def pictures_below(folder: Path) -> list[str]:
    """Paths of all visible files below a folder that have an image's suffix, in a fixed order."""
    return [str(path) for path, _ in walk(folder) if path.suffix.lower() in IMAGE_SUFFIXES]


def _matching(pattern: Path) -> Iterator[str]:
    """Paths of all visible files that a pattern matches."""
    magic = [glob.has_magic(part) for part in pattern.parts]
    if not any(magic):
        return
    first = magic.index(True)
    root, rest = Path(*pattern.parts[:first]), pattern.parts[first:]
    below = rest if rest[-1] != "**" else (*rest, "*")
    hidden = any(part.startswith(".") for part in rest)
    for path in root.glob("/".join(below)):
        visible = hidden or not any(part.startswith(".") for part in path.relative_to(root).parts)
        if visible and not is_folder(path):
            yield str(path)


def shown(path: str) -> str:
    """A path on one line of text, whatever bytes it is made of."""
    return display(path).translate(_ROW_ENDS)

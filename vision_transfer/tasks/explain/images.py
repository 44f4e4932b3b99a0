"""The pictures that are looked at: files that a user names, or some of a data set's test images."""

import glob
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from vision_transfer.data.dataset import Split
from vision_transfer.data.images.decode import UndecodableError, decode_file
from vision_transfer.data.images.resize import resize
from vision_transfer.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff")
WILDCARDS = "*?["
# Of a data set as many are shown as fit a glance.
MOST_OF_A_DATA_SET = 6


@dataclass(frozen=True)
class Picture:
    """A picture by its name for titles and file names, and its pixels at its own size.

    Attributes:
        name: unique among the pictures that are looked at together.
        pixels: `(height, width, channels) uint8`.
    """

    name: str
    pixels: UInt8[np.ndarray, "height width channels"]

    def resized(self, size: int, resampling: str) -> UInt8[np.ndarray, "size size channels"]:
        """As a network takes it."""
        return resize(self.pixels, size, resampling)

    def at_most(self, size: int) -> UInt8[np.ndarray, "new_height new_width channels"]:
        """Shrunk where a side is longer than `size` pixels; keeps the aspect ratio."""
        height, width = self.pixels.shape[:2]
        scale = min(1.0, size / max(height, width))
        return _shrunk(self.pixels, max(1, round(height * scale)), max(1, round(width * scale)))

    def small_square(self, size: int) -> UInt8[np.ndarray, "size size channels"]:
        """The largest square in the middle, with the means of its parts as pixels."""
        height, width = self.pixels.shape[:2]
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        return _shrunk(self.pixels[top : top + side, left : left + side], size, size)


@dataclass(frozen=True)
class Unreadable:
    """A file that gives no picture, and why."""

    path: Path
    reason: str


def read_pictures(images: str, channels: int) -> tuple[list[Picture], list[Unreadable]]:
    """All pictures of `--images`: a file, all image files below a folder, or a pattern such as `'folder/**/*.jpg'`.

    Args:
        images: the flag's value.
        channels: 3 for RGB, 1 for grey.

    Raises:
        UserError: nothing is there, or none of it is a picture.
    """
    paths = _find(images)
    pictures, unreadable = [], []
    for name, path in zip(_names(paths), paths, strict=True):
        try:
            pictures.append(Picture(name, decode_file(path, channels)))
        except UndecodableError as reason:
            unreadable.append(Unreadable(path, str(reason)))
    if not pictures:
        first = unreadable[0]
        raise UserError(f"--images={images}: no picture can be read; {first.path}: {first.reason}")
    return pictures, unreadable


def pictures_of_classes(split: Split, classes: tuple[str, ...], most: int = MOST_OF_A_DATA_SET) -> list[Picture]:
    """The first image of each class, and so on in turns until there are `most`."""
    seen: dict[int, int] = {}
    turns = []
    for label in split.labels.tolist():
        turns.append(seen.get(label, 0))
        seen[label] = turns[-1] + 1
    order = np.lexsort((split.labels, turns))[:most]
    pictures = []
    for index in order:
        name = _safe(f"{classes[split.labels[index]]}-{Path(split.files[index]).name}")
        pictures.append(Picture(name, np.asarray(split.images[index])))
    return pictures


def _find(images: str) -> list[Path]:
    path = Path(images).expanduser()
    if path.is_dir():
        found = sorted(each for each in path.rglob("*") if each.suffix.lower() in SUFFIXES and each.is_file())
        if not found:
            raise UserError(f"--images={images}: the folder has no image files ({', '.join(SUFFIXES)})")
        return found
    if path.exists():
        return [path]
    found = sorted(Path(each) for each in glob.glob(str(path), recursive=True))  # noqa: PTH207 (absolute patterns)
    files = [each for each in found if each.is_file()]
    if not files:
        hint = "no file fits the pattern" if set(images) & set(WILDCARDS) else "there is no such file or folder"
        raise UserError(f"--images={images}: {hint}; give a file, a folder or a pattern such as 'folder/**/*.jpg'")
    return files


def _names(paths: list[Path]) -> list[str]:
    """The files' names without suffix; numbered where two would be the same."""
    names: list[str] = []
    for path in paths:
        stem = _safe(path.stem)
        name, number = stem, 2
        while name in names:
            name, number = f"{stem}-{number}", number + 1
        names.append(name)
    return names


def _safe(name: str) -> str:
    """The name with _ for what may not stand in a file's name, and for $, which figures take for mathematics."""
    return "".join(character if character.isalnum() or character in " .-_()+," else "_" for character in name)


def _shrunk(
    pixels: UInt8[np.ndarray, "height width channels"], height: int, width: int
) -> UInt8[np.ndarray, "new_height new_width channels"]:
    """Means of the pixels that fall into one."""
    from PIL import Image

    if pixels.shape[:2] == (height, width):
        return pixels
    one_channel = pixels.shape[-1] == 1
    image = Image.fromarray(pixels[..., 0] if one_channel else pixels)
    shrunk = np.asarray(image.resize((width, height), Image.Resampling.BOX))
    return shrunk[..., None] if one_channel else shrunk

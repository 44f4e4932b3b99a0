"""The images to explain: files that a user names, or some of a data set's test images."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from vision_transfer.data.dataset import Split
from vision_transfer.data.formats.image_files import display
from vision_transfer.data.images.decode import UndecodableError, decode_file
from vision_transfer.errors import UserError
from vision_transfer.predict.image_files import find_images
from vision_transfer.runtime.console import Screen

# Test images of a data set that are shown where the user names no files.
MOST_OF_A_DATA_SET = 6


@dataclass(frozen=True)
class NamedImage:
    """An image at its own size, with a name for titles and file names that no other image shown with it has."""

    name: str
    pixels: UInt8[np.ndarray, "height width channels"]

    def at_most(self, size: int) -> UInt8[np.ndarray, "new_height new_width channels"]:
        """The image with its longer side at most `size` pixels and its aspect ratio kept."""
        height, width = self.pixels.shape[:2]
        scale = min(1.0, size / max(height, width))
        return _shrunk(self.pixels, max(1, round(height * scale)), max(1, round(width * scale)))

    def small_square(self, size: int) -> UInt8[np.ndarray, "size size channels"]:
        """The largest centred square, reduced to `size` pixels a side."""
        height, width = self.pixels.shape[:2]
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        return _shrunk(self.pixels[top : top + side, left : left + side], size, size)


def read_images(
    images: str, channels: int, value_range: tuple[float, ...] = (), screen: Screen | None = None
) -> tuple[list[NamedImage], dict[Path, str]]:
    """All images of `--images` (a file, a folder or a pattern), and the reason for each file that cannot be read.

    Raises:
        UserError: there is no file, or none can be read.
    """
    paths = [Path(path) for path in find_images(images, screen)]
    found, unreadable = [], {}
    for name, path in zip(_unique(_safe(path.stem) for path in paths), paths, strict=True):
        try:
            found.append(NamedImage(name, decode_file(path, channels, value_range)))
        except UndecodableError as reason:
            unreadable[path] = str(reason)
    if not found:
        path, reason = next(iter(unreadable.items()))
        raise UserError(f"--images={images}: no image can be read; {display(str(path))}: {reason}")
    return found, unreadable


def first_images(split: Split, classes: tuple[str, ...], most: int = MOST_OF_A_DATA_SET) -> list[NamedImage]:
    """The first image of each class, then the second of each, and so on until there are `most`."""
    seen: dict[int, int] = {}
    turns = []
    for label in split.labels.tolist():
        turns.append(seen.get(label, 0))
        seen[label] = turns[-1] + 1
    chosen = np.lexsort((split.labels, turns))[:most].tolist()
    names = _unique(_safe(f"{classes[split.labels[index]]}-{Path(split.files[index]).name}") for index in chosen)
    return [NamedImage(name, np.asarray(split.images[index])) for name, index in zip(names, chosen, strict=True)]


def _unique(names: Iterable[str]) -> list[str]:
    """The names; numbered where two would be the same."""
    found: list[str] = []
    for first in names:
        name, number = first, 2
        while name in found:
            name, number = f"{first}-{number}", number + 1
        found.append(name)
    return found


def _safe(name: str) -> str:
    """The name with _ for characters that file names may not have, and for $, which starts a formula in figures."""
    return "".join(character if character.isalnum() or character in " .-_()+," else "_" for character in name)


def _shrunk(
    pixels: UInt8[np.ndarray, "height width channels"], height: int, width: int
) -> UInt8[np.ndarray, "new_height new_width channels"]:
    """Each new pixel is the mean of the pixels it covers."""
    from PIL import Image

    if pixels.shape[:2] == (height, width):
        return pixels
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    return np.asarray(image.resize((width, height), Image.Resampling.BOX)).reshape(height, width, -1)

"""Findings about single files: what does not decode, wrong extensions, unusual pixels and sizes."""

from collections.abc import Iterator
from pathlib import PurePosixPath

from vision_transfer.data.source import Source
from vision_transfer.tasks.check.findings import Finding
from vision_transfer.tasks.check.scan import Looked, Picture

# Extensions that each format goes by, in small letters.
EXTENSIONS = {
    "JPEG": {".jpg", ".jpeg", ".jpe", ".jfif"},
    "MPO": {".jpg", ".jpeg", ".jpe", ".mpo"},
    "PNG": {".png", ".apng"},
    "BMP": {".bmp", ".dib"},
    "WEBP": {".webp"},
    "GIF": {".gif"},
    "TIFF": {".tif", ".tiff"},
}
# A picture enlarged more than this, or pressed into a square from sides this much apart, looks unlike the others.
MOST_ENLARGED = 2.0
MOST_STRETCHED = 3.0
# Grey pictures are unusual where they are fewer than this share.
UNUSUAL_SHARE = 0.1


def unreadable(source: Source, looked: Looked) -> Iterator[Finding]:
    """Files that cannot be read or decoded."""
    for skipped in source.skipped:
        yield Finding("unreadable", skipped.reason, (skipped.file,))
    for place, picture in enumerate(looked.pictures):
        if picture.problem is not None:
            yield Finding("unreadable", picture.problem, (looked.files[place],))


def unusual_files(looked: Looked, image_size: int) -> Iterator[Finding]:
    """Extensions, pixels and sizes that are not what one would expect of pictures read at `image_size`."""
    grey_is_unusual = _grey_is_unusual(looked)
    for place, picture in enumerate(looked.pictures):
        if picture.problem is not None:
            continue
        file = looked.files[place]
        for kind, detail, score in _of_one(picture, file, image_size, grey_is_unusual):
            yield Finding(kind, detail, (file,), (place,), score)


def _of_one(picture: Picture, file: str, image_size: int, grey_is_unusual: bool) -> Iterator[tuple[str, str, float]]:
    """Kind, detail and score of what is unusual about one picture."""
    extension = PurePosixPath(file).suffix.lower()
    if picture.format and extension not in EXTENSIONS.get(picture.format, {extension}):
        yield "wrong_extension", f"is {picture.format}, not {extension or 'a file without extension'}", 0.0
    for oddity in picture.oddities:
        yield "mode", oddity, 1.0
    if picture.is_grey and grey_is_unusual:
        yield "mode", "grey, while most are in colour", 0.0
    if not picture.format:
        return
    width, height = picture.size
    enlarged, stretched = image_size / min(width, height), max(width, height) / min(width, height)
    if enlarged > MOST_ENLARGED:
        yield "size", f"{width} x {height}: enlarged {enlarged:.1f} times to {image_size} pixels", enlarged
    if stretched > MOST_STRETCHED:
        yield "size", f"{width} x {height}: one side is {stretched:.1f} times the other", stretched


def _grey_is_unusual(looked: Looked) -> bool:
    grey = [picture.is_grey for picture in looked.pictures if picture.problem is None and picture.format]
    return bool(grey) and 0 < sum(grey) < UNUSUAL_SHARE * len(grey)

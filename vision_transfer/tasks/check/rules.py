"""The rules: findings about classes and folders, about single files, and about images that show the same."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Int

from vision_transfer.data.formats.folder import beside_splits, looks_like_split
from vision_transfer.data.images.near_duplicates import equal_contents, near_duplicates
from vision_transfer.data.source import Source
from vision_transfer.tasks.check.findings import Finding
from vision_transfer.tasks.check.scan import Scan, ScannedImage

# With fewer images a class is hardly learnt, or one image changes its recall by more than 20 points.
FEW_TO_LEARN_FROM = 10
FEW_TO_MEASURE_BY = 5
# Ratio of the largest class to the smallest from which a network that never predicts the smallest is hardly wrong.
UNEQUAL = 5
# Lower-case extensions of each format.
EXTENSIONS = {
    "JPEG": {".jpg", ".jpeg", ".jpe", ".jfif"},
    "MPO": {".jpg", ".jpeg", ".jpe", ".mpo"},
    "PNG": {".png", ".apng"},
    "BMP": {".bmp", ".dib"},
    "WEBP": {".webp"},
    "GIF": {".gif"},
    "TIFF": {".tif", ".tiff"},
}
# An image enlarged more than this, or squeezed into a square from sides with this ratio, looks unlike the others.
MOST_ENLARGED = 2.0
MOST_STRETCHED = 3.0
# Grey images are unusual if their share is smaller.
UNUSUAL_SHARE = 0.1


def class_counts(scan: Scan) -> Int[np.ndarray, "splits classes"]:
    """Number of images of each class in each split, without those that do not decode."""
    counts = np.zeros((len(scan.split_names), len(scan.classes)), np.int64)
    decoded = scan.decoded
    np.add.at(counts, (scan.splits[decoded], scan.labels[decoded]), 1)
    return counts


def class_sizes(scan: Scan) -> Iterator[Finding]:
    """Small classes, and training classes of very unequal size."""
    counts = class_counts(scan)
    for split, name in enumerate(scan.split_names):
        few = FEW_TO_LEARN_FROM if name == "train" else FEW_TO_MEASURE_BY
        for label in np.flatnonzero(counts[split] < few):
            count = int(counts[split, label])
            detail = f"{scan.classes[label]}: {count} in {name} (fewer than {few})"
            yield Finding("tiny_class", detail, score=1 / (1 + count))
    train = counts[scan.split_names.index("train")]
    smallest, largest = int(np.argmin(train)), int(np.argmax(train))
    if train[largest] >= UNEQUAL * max(train[smallest], 1):
        yield Finding(
            "imbalance",
            f"{scan.classes[largest]} has {train[largest]:,} training images, {scan.classes[smallest]} "
            f"{train[smallest]:,}",
        )


def folders_like_splits(scan: Scan, root: Path | None) -> Iterator[Finding]:
    """Classes named like splits, and folders beside the splits that nothing reads."""
    for name in scan.classes:
        if looks_like_split(name):
            yield Finding("layout", f"the class {name} is named like a split; splits are train, validation and test")
    if root is not None and root.is_dir():
        for name in beside_splits(root):
            yield Finding("layout", f"the folder {name} is beside train and is not read")


def unreadable(source: Source, scan: Scan) -> Iterator[Finding]:
    """Files that cannot be read or decoded."""
    for skipped in source.skipped:
        yield Finding("unreadable", skipped.reason, (skipped.file,))
    for file, image in zip(scan.files, scan.images, strict=True):
        if image.problem is not None:
            yield Finding("unreadable", image.problem, (file,))


def unusual_files(scan: Scan, image_size: int) -> Iterator[Finding]:
    """Unexpected extensions, pixels and sizes of images that are read at `image_size`."""
    grey = [image.is_grey for image in scan.images if image.problem is None and image.format]
    grey_is_unusual = 0 < sum(grey) < UNUSUAL_SHARE * len(grey)
    for place, (file, image) in enumerate(zip(scan.files, scan.images, strict=True)):
        if image.problem is None:
            for kind, detail, score in _unusual(image, file, image_size, grey_is_unusual):
                yield Finding(kind, detail, (file,), (place,), score)


def copies(scan: Scan) -> tuple[list[Finding], np.ndarray]:
    """Findings about all pairs that show the same, and those pairs: `(pairs, 2) int32` places, the smaller first."""
    equal = equal_contents([image.content for image in scan.images]).tolist()
    near = near_duplicates(np.stack([image.thumbnail for image in scan.images]), scan.decoded)
    of_equal_files = {scan.images[second].content for _, second in equal}
    pairs: list[tuple[list[int], float | None]] = [(pair, None) for pair in equal]
    for pair, similarity in zip(near.pairs.tolist(), near.similarity.tolist(), strict=True):
        contents = {scan.images[place].content for place in pair}
        if len(contents) > 1 or not contents <= of_equal_files:
            pairs.append((pair, similarity))
    findings = [finding for pair, similarity in pairs for finding in _of_a_pair(scan, pair, similarity)]
    return findings, np.array([pair for pair, _ in pairs], np.int32).reshape(-1, 2)


def _unusual(
    image: ScannedImage, file: str, image_size: int, grey_is_unusual: bool
) -> Iterator[tuple[str, str, float]]:
    """Kind, detail and score of each finding about one image."""
    extension = PurePosixPath(file).suffix.lower()
    if image.format and extension not in EXTENSIONS.get(image.format, {extension}):
        yield "wrong_extension", f"is {image.format}, not {extension or 'a file without extension'}", 0.0
    for oddity in image.oddities:
        yield "mode", oddity, 1.0
    if image.is_grey and grey_is_unusual:
        yield "mode", "grey, while most are in colour", 0.0
    if not image.format:
        return
    width, height = image.size
    enlarged, stretched = image_size / min(width, height), max(width, height) / min(width, height)
    if enlarged > MOST_ENLARGED:
        yield "size", f"{width} x {height}: enlarged {enlarged:.1f} times to {image_size} pixels", enlarged
    if stretched > MOST_STRETCHED:
        yield "size", f"{width} x {height}: one side is {stretched:.1f} times the other", stretched


def _of_a_pair(scan: Scan, pair: list[int], similarity: float | None) -> Iterator[Finding]:
    """Findings about two images that show the same; `similarity` is None for equal files."""
    first, second = places = tuple(pair)
    files = scan.files[first], scan.files[second]
    how = "the same file" if similarity is None else f"near-duplicates, similarity {similarity:.3f}"
    score = 2.0 if similarity is None else similarity
    one, other = scan.split_of(first), scan.split_of(second)
    if one != other:
        yield Finding("leak", f"{how}, in {one} and {other}", files, places, score)
    if scan.labels[first] != scan.labels[second]:
        detail = f"{how}, as {scan.class_of(first)} and {scan.class_of(second)}"
        yield Finding("label_conflict", detail, files, places, score)
    if one == other:
        yield Finding("duplicate" if similarity is None else "near_duplicate", f"{how}, in {one}", files, places, score)

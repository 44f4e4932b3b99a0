"""The rules: findings about classes and folders, about single files, and about images that show the same."""

from collections.abc import Iterator
from pathlib import PurePosixPath

import numpy as np
from jaxtyping import Int

from vision_transfer.data.dataset import DIGEST_BYTES, stack_digests
from vision_transfer.data.doubts import FEWEST_OF_A_CLASS, LEAST_CONTRAST, say_too_small, say_without_contrast
from vision_transfer.data.formats.folder import looks_like_split
from vision_transfer.data.images.near_duplicates import equal_contents, near_duplicates
from vision_transfer.data.source import Source
from vision_transfer.errors import UserError
from vision_transfer.tasks.check.findings import Finding
from vision_transfer.tasks.check.scan import Scan, ScannedImage

# With fewer images a class is hardly learnt.
FEW_TO_LEARN_FROM = 10
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
    "PPM": {".ppm", ".pgm", ".pbm", ".pnm", ".pfm"},
    "AVIF": {".avif", ".avifs"},
    "JPEG2000": {".jp2", ".j2k", ".jpc", ".jpf", ".jpx"},
    "HEIF": {".heic", ".heif", ".hif"},
}
# An image enlarged more than this, or squeezed into a square from sides with this ratio, looks unlike the others.
MOST_ENLARGED = 2.0
MOST_STRETCHED = 3.0
# What more than this share of all images have in common is a fact about the data set, not a fault of each of them.
UNUSUAL_SHARE = 0.1
# Nearly black: all but 1 % of the pixels are darker than this level. Mostly white: more than this share of the pixels
# are white, and usual images of this data set have less than the other share.
DARK_LEVEL = 40
WHITE_SHARE, USUAL_WHITE_SHARE = 0.6, 0.2
# Fewer findings of a kind are listed one by one, however few images there are.
FEW_TO_LIST = 5


def class_counts(scan: Scan) -> Int[np.ndarray, "splits classes"]:
    """Number of images of each class in each split, without those that do not decode."""
    counts = np.zeros((len(scan.split_names), len(scan.classes)), np.int64)
    decoded = scan.decoded
    np.add.at(counts, (scan.splits[decoded], scan.labels[decoded]), 1)
    return counts


def class_sizes(scan: Scan) -> Iterator[Finding]:
    """Empty and small classes, training classes of very unequal size, and splits too small to measure by."""
    counts = class_counts(scan)
    for split, name in enumerate(scan.split_names):
        few = FEW_TO_LEARN_FROM if name == "train" else FEWEST_OF_A_CLASS
        for label in np.flatnonzero(counts[split] < few):
            count = int(counts[split, label])
            if count == 0:
                yield Finding("empty_class", f"{scan.classes[label]}: no image in {name}, so a run refuses the data")
                continue
            detail = f"{scan.classes[label]}: {count} in {name} (fewer than {few})"
            yield Finding("tiny_class", detail, score=1 / (1 + count))
        if name != "train":
            present = np.flatnonzero(counts[split])
            labels = np.repeat(np.arange(len(present)), counts[split][present])
            for detail in say_too_small(name, [scan.classes[label] for label in present], labels):
                yield Finding("small_split", detail)
    train = counts[scan.split_names.index("train")]
    smallest, largest = int(np.argmin(train)), int(np.argmax(train))
    if train[largest] >= UNEQUAL * max(train[smallest], 1):
        yield Finding(
            "imbalance",
            f"{scan.classes[largest]} has {train[largest]:,} training images, {scan.classes[smallest]} "
            f"{train[smallest]:,}",
        )


def layout(source: Source) -> Iterator[Finding]:
    """Classes named like splits, and what lies in the folder and is not read."""
    for name in source.classes:
        if looks_like_split(name):
            yield Finding("layout", f"the class {name} is named like a split; splits are train, validation and test")
    for warning in source.warnings:
        yield Finding("layout", warning)


def unreadable(source: Source, scan: Scan) -> Iterator[Finding]:
    """Files that cannot be read or decoded."""
    for skipped in source.skipped:
        yield Finding("unreadable", skipped.reason, (skipped.file,))
    for file, image in zip(scan.files, scan.images, strict=True):
        if image.problem is not None:
            yield Finding("unreadable", image.problem, (file,))


def unusual_files(source: Source, scan: Scan, image_size: int, value_range: tuple[float, ...]) -> Iterator[Finding]:
    """Unexpected extensions, pixels and sizes of images that are read at `image_size`, with this range of values.

    What more than `UNUSUAL_SHARE` of the images have in common is one finding about the data set.
    """
    decoded = [place for place, image in enumerate(scan.images) if image.problem is None]
    grey = sum(scan.images[place].is_grey for place in decoded)
    grey_is_unusual = 0 < grey < UNUSUAL_SHARE * len(decoded)
    usual_white = float(np.median([image.exposure.white for image in scan.images if image.exposure is not None] or [0]))
    found: dict[tuple[str, str], list[Finding]] = {}
    for place in decoded:
        image, file = scan.images[place], scan.files[place]
        details = [*_unusual_pixels(image, usual_white), *_unusual_file(image, file, image_size, grey_is_unusual)]
        for kind, what, detail, score in details:
            found.setdefault((kind, what), []).append(Finding(kind, detail, (file,), (place,), score))
    for (kind, what), findings in found.items():
        if len(findings) > max(UNUSUAL_SHARE * len(decoded), FEW_TO_LIST):
            of_all = f"{len(findings):,} of {len(decoded):,} images: {what}"
            if kind == "blank":
                of_all = _what_a_run_says([one.files[0] for one in findings], source, len(decoded), value_range)
            yield Finding(kind, of_all, score=1e9)
        else:
            yield from findings


def copies(scan: Scan) -> tuple[list[Finding], np.ndarray]:
    """Findings about all pairs that show the same, and those pairs: `(pairs, 2) int32` places, the smaller first."""
    # What does not decode is no example.
    contents = stack_digests([image.content.ljust(DIGEST_BYTES, b"\0") for image in scan.images])
    equal = [pair for pair in equal_contents(contents).tolist() if scan.decoded[pair[0]]]
    near = near_duplicates(np.stack([image.thumbnail for image in scan.images]), scan.decoded)
    of_equal_files = {scan.images[second].content for _, second in equal}
    pairs: list[tuple[list[int], float | None]] = [(pair, None) for pair in equal]
    for pair, similarity in zip(near.pairs.tolist(), near.similarity.tolist(), strict=True):
        contents = {scan.images[place].content for place in pair}
        if len(contents) > 1 or not contents <= of_equal_files:
            pairs.append((pair, similarity))
    findings = [finding for pair, similarity in pairs for finding in _of_a_pair(scan, pair, similarity)]
    return findings, np.array([pair for pair, _ in pairs], np.int32).reshape(-1, 2)


def _unusual_pixels(image: ScannedImage, usual_white: float) -> Iterator[tuple[str, str, str, float]]:
    """Kind, what it is, detail and score of each finding about the levels of one image."""
    exposure = image.exposure
    if exposure is None:
        return
    if exposure.span < LEAST_CONTRAST:
        levels = "a single level" if exposure.span == 0 else f"only {exposure.span + 1} levels of 256"
        detail = f"{levels}, {exposure.mean:.0f} on average"
        if image.is_wide:
            detail += ": --config.dataset.value_range can tell the range of values of its 16 or more bits"
        yield "blank", "of nearly one colour", detail, 256 - exposure.span
    elif exposure.brightest < DARK_LEVEL:
        yield "dark", "nearly black", f"99 % of its pixels are darker than {exposure.brightest:.0f} of 255", 0.0
    elif exposure.white > WHITE_SHARE and usual_white < USUAL_WHITE_SHARE:
        yield "bright", "mostly white", f"{exposure.white:.0%} of its pixels are white", exposure.white


def _what_a_run_says(blank: list[str], source: Source, images: int, value_range: tuple[float, ...]) -> str:
    """The sentence of a run about images without contrast, with the range that their values have."""
    try:
        return " ".join(say_without_contrast(blank, source.splits, images, value_range))
    except UserError as refused:
        return f"a run refuses the data: {refused}"


def _unusual_file(
    image: ScannedImage, file: str, image_size: int, grey_is_unusual: bool
) -> Iterator[tuple[str, str, str, float]]:
    """Kind, what it is, detail and score of each finding about the file of one image."""
    extension = PurePosixPath(file).suffix.lower()
    if image.format and extension not in EXTENSIONS.get(image.format, {extension}):
        what = f"is {image.format}, and named {f'*{extension}' if extension else 'without an extension'}"
        yield "wrong_extension", what, what, 0.0
    for oddity in image.oddities:
        yield "mode", oddity, oddity, 1.0
    if image.is_grey and grey_is_unusual:
        yield "mode", "grey", "grey, while most are in colour", 0.0
    if not image.format:
        return
    width, height = image.size
    enlarged, stretched = image_size / min(width, height), max(width, height) / min(width, height)
    if enlarged > MOST_ENLARGED:
        what = f"enlarged more than {MOST_ENLARGED:g} times to {image_size} pixels"
        yield "size", what, f"{width} x {height}: enlarged {enlarged:.1f} times to {image_size} pixels", enlarged
    if stretched > MOST_STRETCHED:
        what = f"one side is more than {MOST_STRETCHED:g} times the other"
        yield "size", what, f"{width} x {height}: one side is {stretched:.1f} times the other", stretched


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

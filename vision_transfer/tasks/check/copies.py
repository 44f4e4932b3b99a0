"""Findings about pairs of pictures: equal files and near-duplicates, within a split, across splits, across classes."""

from collections.abc import Iterator

import numpy as np

from vision_transfer.data.images.near_duplicates import equal_contents, near_duplicates
from vision_transfer.tasks.check.findings import Finding
from vision_transfer.tasks.check.scan import Looked


def copies(looked: Looked) -> tuple[list[Finding], np.ndarray]:
    """Findings about all pairs that show the same, and those pairs: `(pairs, 2) int32` places, the smaller first."""
    equal = equal_contents([picture.content for picture in looked.pictures]).tolist()
    thumbnails = np.stack([picture.thumbnail for picture in looked.pictures])
    near = near_duplicates(thumbnails, looked.decoded)
    of_equal_files = {looked.pictures[second].content for _, second in equal}
    findings: list[Finding] = []
    pairs = list(equal)
    for first, second in equal:
        findings.extend(_findings(looked, first, second, None))
    for (first, second), similarity in zip(near.pairs.tolist(), near.similarity.tolist(), strict=True):
        contents = {looked.pictures[place].content for place in (first, second)}
        if len(contents) == 1 and contents <= of_equal_files:
            continue
        pairs.append([first, second])
        findings.extend(_findings(looked, first, second, similarity))
    return findings, np.array(pairs, np.int32).reshape(-1, 2)


def _findings(looked: Looked, first: int, second: int, similarity: float | None) -> Iterator[Finding]:
    """What is wrong with a pair; `similarity` is None for equal files."""
    files, places = (looked.files[first], looked.files[second]), (first, second)
    how = "the same file" if similarity is None else f"near-duplicates, similarity {similarity:.3f}"
    score = 2.0 if similarity is None else similarity
    one, other = looked.split_of(first), looked.split_of(second)
    if one != other:
        yield Finding("leak", f"{how}, in {one} and {other}", files, places, score)
    if looked.labels[first] != looked.labels[second]:
        yield Finding(
            "label_conflict", f"{how}, as {looked.class_of(first)} and {looked.class_of(second)}", files, places, score
        )
    if one == other:
        yield Finding("duplicate" if similarity is None else "near_duplicate", f"{how}, in {one}", files, places, score)

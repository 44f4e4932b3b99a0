"""Findings about classes and folders: few pictures, unequal sizes, folders that look like splits."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Int

from vision_transfer.data.formats.folder import beside_splits, looks_like_split
from vision_transfer.tasks.check.findings import Finding
from vision_transfer.tasks.check.scan import Looked

# Under these a class is hardly learnt, and one picture moves its recall by more than 20 points.
FEW_TO_LEARN_FROM = 10
FEW_TO_MEASURE_BY = 5
# The largest class against the smallest: from here on, a network that never says the smallest is hardly wrong.
UNEQUAL = 5


def class_counts(looked: Looked) -> Int[np.ndarray, "splits classes"]:
    """Pictures of each class in each split, without those that do not decode."""
    counts = np.zeros((len(looked.split_names), len(looked.classes)), np.int64)
    decoded = looked.decoded
    np.add.at(counts, (looked.splits[decoded], looked.labels[decoded]), 1)
    return counts


def class_sizes(looked: Looked) -> Iterator[Finding]:
    """Classes that are small, and classes that are far from equally large in training."""
    counts = class_counts(looked)
    for split, name in enumerate(looked.split_names):
        few = FEW_TO_LEARN_FROM if name == "train" else FEW_TO_MEASURE_BY
        for label in np.flatnonzero(counts[split] < few):
            count = int(counts[split, label])
            detail = f"{looked.classes[label]}: {count} in {name} (fewer than {few})"
            yield Finding("tiny_class", detail, score=1 / (1 + count))
    train = counts[looked.split_names.index("train")]
    smallest, largest = int(np.argmin(train)), int(np.argmax(train))
    if train[largest] >= UNEQUAL * max(train[smallest], 1):
        yield Finding(
            "imbalance",
            f"{looked.classes[largest]} has {train[largest]:,} training pictures, {looked.classes[smallest]} "
            f"{train[smallest]:,}",
        )


def folders_like_splits(looked: Looked, root: Path | None) -> Iterator[Finding]:
    """Classes named like splits, and folders beside the splits that nothing reads."""
    for name in looked.classes:
        if looks_like_split(name):
            yield Finding("layout", f"the class {name} is named like a split; splits are train, validation and test")
    if root is not None and root.is_dir():
        for name in beside_splits(root):
            yield Finding("layout", f"the folder {name} stands beside train and is not read")

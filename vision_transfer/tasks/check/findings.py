"""Findings, the things that are wrong with a data set, and their kinds, the worst first."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """A kind of finding: `error`, `warning` or `note`.

    With an error training refuses the data, leaves files out, or gives metrics that mean nothing.
    """

    severity: str
    title: str
    advice: str


# The worst first, as in the table, check.json and the contact sheet.
KINDS: dict[str, Kind] = {
    "leak": Kind("error", "in two splits", "remove it from one of them; otherwise the test measures memory"),
    "layout": Kind("error", "folders and files that are not where they should be", "move or rename them"),
    "label_conflict": Kind("error", "one image, two labels", "keep the right one"),
    "unreadable": Kind("error", "not a readable image", "fix or remove it; training leaves it out"),
    "empty_class": Kind("error", "class without images", "add some, or remove the class from all splits"),
    "blank": Kind("warning", "images without contrast", "remove them; for dark files of 16 bits see the detail"),
    "small_split": Kind("warning", "split too small to choose or measure by", "more images; or several seeds"),
    "tiny_class": Kind("warning", "class with very few images", "add some, or merge or drop the class"),
    "imbalance": Kind("warning", "classes of unequal size", "--config.balance=class_weights or sampling"),
    "suspect_label": Kind("warning", "label contradicted by a classifier", "look at the contact sheet"),
    "outlier": Kind("warning", "unlike all other images", "look at the contact sheet"),
    "duplicate": Kind("warning", "the same file twice", "keep one; splits made here keep them together"),
    "dark": Kind("warning", "nearly black", "look at the contact sheet; a network sees hardly more than the eye"),
    "bright": Kind("warning", "mostly white or overexposed", "look at the contact sheet"),
    "near_duplicate": Kind("note", "nearly the same image twice", "splits made here keep them together"),
    "wrong_extension": Kind("note", "named as another format", "nothing: files are read by their content"),
    "mode": Kind("note", "unusual kind of pixels", "nothing if the image looks right on the contact sheet"),
    "size": Kind("note", "unusual size", "nothing if the image looks right; images become squares"),
}


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong; of a kind, the worst has the largest score.

    A finding about a class or folder has no files; `places` are the positions of files among all examples, and empty
    for files that are no examples.
    """

    kind: str
    detail: str
    files: tuple[str, ...] = ()
    places: tuple[int, ...] = ()
    score: float = 0.0


def worst_first(findings: Sequence[Finding]) -> list[Finding]:
    """The findings by kind, and by score within each kind."""
    rank = {kind: place for place, kind in enumerate(KINDS)}
    return sorted(findings, key=lambda finding: (rank[finding.kind], -finding.score, finding.files, finding.detail))


def counted(findings: Sequence[Finding]) -> dict[str, int]:
    """The number of findings of each kind that occurs, the worst kind first."""
    counts = {kind: sum(finding.kind == kind for finding in findings) for kind in KINDS}
    return {kind: count for kind, count in counts.items() if count}

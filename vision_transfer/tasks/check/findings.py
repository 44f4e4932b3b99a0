"""What can be wrong with a data set: the kinds of findings, the worst first, and the findings themselves."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """A kind of finding.

    Attributes:
        severity: `error` (training refuses it, or its figures mean nothing), `warning` or `note`.
        title: what it is.
        advice: what to do about it.
    """

    severity: str
    title: str
    advice: str


# The worst first; this is the order of the table, of check.json and of the contact sheet.
KINDS: dict[str, Kind] = {
    "leak": Kind("error", "in two splits", "remove it from one of them: the score would be a memory test"),
    "layout": Kind("error", "folders that look like splits", "rename or move them: classes are read from folders"),
    "label_conflict": Kind("error", "one picture, two labels", "keep the right one"),
    "unreadable": Kind("error", "not a picture that can be read", "mend or remove it; training leaves it out"),
    "tiny_class": Kind("warning", "class with very few pictures", "add some, or merge or drop the class"),
    "imbalance": Kind("warning", "classes of unequal size", "--config.balance=class_weights or sampling"),
    "suspect_label": Kind("warning", "label that a classifier contradicts", "look at the contact sheet"),
    "outlier": Kind("warning", "unlike all other pictures", "look at the contact sheet"),
    "duplicate": Kind("warning", "the same file twice", "keep one; splits made here keep them together"),
    "near_duplicate": Kind("note", "nearly the same picture twice", "splits made here keep them together"),
    "wrong_extension": Kind("note", "named as another format", "nothing: files are read by their content"),
    "mode": Kind("note", "unusual kind of pixels", "nothing, if it looks right: see how it is read"),
    "size": Kind("note", "unusual size", "nothing, if it looks right: pictures become squares"),
}


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        kind: a key of `KINDS`.
        detail: what is wrong, in words.
        files: names of the files that it is about; empty where it is about a class or folder.
        places: the numbers of those files among all examples; empty where they are no examples.
        score: orders findings of one kind, the worst first by the largest score.
    """

    kind: str
    detail: str
    files: tuple[str, ...] = ()
    places: tuple[int, ...] = ()
    score: float = 0.0


def worst_first(findings: Sequence[Finding]) -> list[Finding]:
    """In the order of their kinds, and by score within each."""
    rank = {kind: place for place, kind in enumerate(KINDS)}
    return sorted(findings, key=lambda finding: (rank[finding.kind], -finding.score, finding.files, finding.detail))


def counted(findings: Sequence[Finding]) -> dict[str, int]:
    """How many there are of each kind that there are any of, the worst kind first."""
    counts = {kind: sum(finding.kind == kind for finding in findings) for kind in KINDS}
    return {kind: count for kind, count in counts.items() if count}

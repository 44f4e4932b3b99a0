"""Choosing examples by a hash of their names: balanced nested subsets, and splits held out of another.

A hash, and no random generator: the choice depends on nothing but seed and names, so it is the same in every version
of every library, at every image size, and adding a file moves no other file to another split.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int32, Integer, UInt64


def hash_names(names: Sequence[str], purpose: str, seed: int) -> UInt64[np.ndarray, "names"]:
    """blake2b-64 of each name under (purpose, seed): what sorts examples into a fixed, arbitrary order.

    `purpose` has at most 16 bytes; `seed` counts modulo 2**128.
    """
    salt = (seed % 2**128).to_bytes(16, "little")
    digests = b"".join(
        hashlib.blake2b(name.encode(), digest_size=8, person=purpose.encode(), salt=salt).digest() for name in names
    )
    return np.frombuffer(digests, "<u8").astype(np.uint64)


def rank_in_class(
    labels: Integer[np.ndarray, "examples"], names: Sequence[str], purpose: str, seed: int
) -> Int32[np.ndarray, "examples"]:
    """Each example's place (0, 1, ...) among those of its class, in the order of `hash_names`."""
    order = np.lexsort((np.arange(len(labels)), hash_names(names, purpose, seed), labels))
    ordered = labels[order]
    ranks = np.empty(len(labels), np.int32)
    ranks[order] = np.arange(len(labels)) - np.searchsorted(ordered, ordered, side="left")
    return ranks


def balanced_subset(
    labels: Integer[np.ndarray, "examples"], names: Sequence[str], count: int, seed: int
) -> Int32[np.ndarray, "count"]:
    """`count` examples, as equal in number over the classes as the data allows, in ascending order.

    The examples are taken class by class in turn, so that with one seed a smaller subset lies in every larger one.
    """
    if not 1 <= count <= len(labels):
        raise ValueError(f"count {count} must be from 1 to {len(labels)}")
    ranks = rank_in_class(labels, names, "subset", seed)
    return np.sort(np.lexsort((labels, ranks))[:count]).astype(np.int32)


def hold_out(
    labels: Integer[np.ndarray, "examples"],
    names: Sequence[str],
    fraction: float,
    purpose: str,
    seed: int = 0,
    groups: Integer[np.ndarray, "examples"] | None = None,
) -> tuple[Int32[np.ndarray, "kept"], Int32[np.ndarray, "held_out"]]:
    """Splits examples class by class: indices of those kept and of those held out, each ascending.

    `round(fraction * n)` of a class's n examples are held out; at least one if `fraction` > 0, and never all of
    them unless there is only one, which is kept. A group is never divided, so that fewer may be held out where groups
    are large, and none of a class that is one single group.

    Args:
        labels: class of each example.
        names: of the examples, all different.
        fraction: share to hold out, at least 0 and less than 1.
        purpose: what the examples are held out for; another purpose chooses others.
        seed: another seed chooses others, too.
        groups: number of each example's group; None where each is one of its own.
    """
    counts = np.bincount(labels)
    wanted = np.rint(fraction * counts).astype(int)
    if fraction > 0:
        wanted = np.maximum(wanted, 1)
    wanted = np.minimum(wanted, np.maximum(counts - 1, 0))
    if groups is None or len(np.unique(groups)) == len(labels):
        held = rank_in_class(labels, names, purpose, seed) < wanted[labels]
    else:
        held = _held_groups(labels, hash_names(names, purpose, seed), groups, counts, wanted)
    return np.flatnonzero(~held).astype(np.int32), np.flatnonzero(held).astype(np.int32)


def _held_groups(
    labels: Integer[np.ndarray, "examples"],
    hashes: UInt64[np.ndarray, "examples"],
    groups: Integer[np.ndarray, "examples"],
    counts: Integer[np.ndarray, "classes"],
    wanted: Integer[np.ndarray, "classes"],
) -> Bool[np.ndarray, "examples"]:
    """Which examples to hold out, whole groups in the order of the hash of their first members while there is room."""
    members = _members(groups)
    members.sort(key=lambda places: (hashes[places[0]], places[0]))
    held = np.zeros(len(labels), bool)
    taken = np.zeros_like(counts)

    def hold(places: np.ndarray, most: np.ndarray) -> None:
        present, numbers = np.unique(labels[places], return_counts=True)
        if (taken[present] + numbers <= most[present]).all():
            held[places] = True
            taken[present] += numbers

    for places in members:
        hold(places, wanted)
    # Classes of which every group was too large: the smallest that leaves something.
    for places in sorted(members, key=len):
        if not held[places[0]] and ((taken == 0) & (wanted > 0))[labels[places]].any():
            hold(places, np.maximum(counts - 1, 0))
    return held


def _members(groups: Integer[np.ndarray, "examples"]) -> list[Integer[np.ndarray, "members"]]:
    """The places of each group's members, ascending."""
    order = np.argsort(groups, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(groups[order])) + 1) if len(order) else []

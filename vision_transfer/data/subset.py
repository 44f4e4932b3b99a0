"""Chooses examples by a hash of their names: balanced nested subsets, and splits held out of another.

With a hash instead of a random generator the choice depends only on seed and names: it is the same in every version of
every library and at every image size, and adding a file moves at most one other file of its class to another split.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int32, Integer, UInt64


def hash_names(names: Sequence[str], purpose: str, seed: int) -> UInt64[np.ndarray, "names"]:
    """blake2b-64 of each name under (purpose, seed), which gives examples a fixed, arbitrary order.

    `purpose` has at most 16 bytes; `seed` is taken modulo 2**128.
    """
    empty = hashlib.blake2b(digest_size=8, person=purpose.encode(), salt=(seed % 2**128).to_bytes(16, "little"))

    def digest(name: str) -> bytes:
        hashed = empty.copy()  # in half the time of another one with the same arguments
        hashed.update(name.encode())
        return hashed.digest()

    return np.frombuffer(b"".join(map(digest, names)), "<u8").astype(np.uint64)


def rank_in_class(
    labels: Integer[np.ndarray, "examples"], names: Sequence[str], purpose: str, seed: int
) -> Int32[np.ndarray, "examples"]:
    """Each example's rank (0, 1, ...) among those of its class, in the order of `hash_names`."""
    # Two sorts, both stable, take half the time of `lexsort`.
    order = np.argsort(hash_names(names, purpose, seed), kind="stable")
    order = order[np.argsort(labels[order], kind="stable")]
    ordered = labels[order]
    ranks = np.empty(len(labels), np.int32)
    ranks[order] = np.arange(len(labels)) - np.searchsorted(ordered, ordered, side="left")
    return ranks


def balanced_subset(
    labels: Integer[np.ndarray, "examples"], names: Sequence[str], count: int, seed: int
) -> Int32[np.ndarray, "count"]:
    """Ascending indices of `count` examples, as evenly distributed over the classes as the data allows.

    The classes take turns, so that with the same seed a smaller subset is contained in every larger one.
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
    """Splits examples class by class: ascending indices of those kept and of those held out.

    `round(fraction * n)` of a class's n examples are held out: at least one if `fraction` > 0, but never all of them.
    Each purpose and each seed chooses others. `groups` numbers the group of each example (None: each is its own). A
    group is never divided, so fewer may be held out if groups are large, and none of a class that is a single group.
    """
    counts = np.bincount(labels)
    wanted = np.rint(fraction * counts).astype(int)
    if fraction > 0:
        wanted = np.maximum(wanted, 1)
    wanted = np.minimum(wanted, np.maximum(counts - 1, 0))
    if groups is None or np.diff(np.sort(groups)).all():
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
    """A mask of the examples to hold out: whole groups that fit, in the order of the hash of their first members."""
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.append(True, np.diff(groups[order]) != 0)[: len(order)])
    ends = np.append(starts[1:], len(order))
    firsts, sizes = order[starts], ends - starts
    by_hash = np.lexsort((firsts, hashes[firsts]))
    held = np.zeros(len(labels), bool)
    taken = np.zeros_like(counts)

    def hold(group: int, most: np.ndarray) -> None:
        places = order[starts[group] : ends[group]]
        # Most groups are one example, of which there may be millions.
        single = len(places) == 1
        present, numbers = (labels[places], 1) if single else np.unique(labels[places], return_counts=True)
        if (taken[present] + numbers <= most[present]).all():
            held[places] = True
            taken[present] += numbers

    full, label_of = taken >= wanted, labels[firsts].tolist()
    for group in by_hash.tolist():
        if not full[label_of[group]]:
            hold(group, wanted)
            full = taken >= wanted
            if full.all():
                break
    # If every group of a class was too large: the smallest one that leaves some examples.
    if ((taken == 0) & (wanted > 0)).any():
        for group in by_hash[np.argsort(sizes[by_hash], kind="stable")].tolist():
            places = order[starts[group] : ends[group]]
            if not held[places[0]] and ((taken == 0) & (wanted > 0))[labels[places]].any():
                hold(group, np.maximum(counts - 1, 0))
    return held

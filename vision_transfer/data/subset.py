"""Choosing examples by a hash of their names: balanced nested subsets, and splits held out of another.

A hash, and no random generator: the choice depends on nothing but seed and names, so it is the same in every version
of every library, at every image size, and adding a file moves no other file to another split.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32, Integer, UInt64


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
    labels: Integer[np.ndarray, "examples"], names: Sequence[str], fraction: float, purpose: str
) -> tuple[Int32[np.ndarray, "kept"], Int32[np.ndarray, "held_out"]]:
    """Splits examples class by class: indices of those kept and of those held out, each ascending.

    `round(fraction * n)` of a class's n examples are held out; at least one if `fraction` > 0, and never all of
    them unless there is only one, which is kept.
    """
    counts = np.bincount(labels)
    wanted = np.rint(fraction * counts).astype(int)
    if fraction > 0:
        wanted = np.maximum(wanted, 1)
    wanted = np.minimum(wanted, np.maximum(counts - 1, 0))
    held = rank_in_class(labels, names, purpose, seed=0) < wanted[labels]
    return np.flatnonzero(~held).astype(np.int32), np.flatnonzero(held).astype(np.int32)

"""Digests of files that were read before, kept for as long as the stamps of the files stay as they were.

A stamp is inode, size, time of modification and time of change. The system sets the last one whenever it writes a
file's content or its other times, and no program can set it back: a changed file has another stamp. One exception: a
file that is changed twice within the granularity of its clock, once before it was read and once after. Digests of files
that changed so shortly before they were read are therefore not kept, as git does with "racily clean" entries. No stamp
tells that a disk returns other bytes than were written; `forget` (the flag `--verify`) has all files read again.

    stamps/NAME    blake2b-128 of the rest; stamps, 4 little-endian int64 each; digests
"""

import time
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from vision_transfer.runtime.file_stamps import Files, stamps_of_files
from vision_transfer.runtime.files import DAMAGE, remove, replaced_file
from vision_transfer.runtime.jax_setup import cores

FOLDER = "stamps"
# Of the times of files: FAT's is the coarsest.
GRANULARITY_NS = 2 * 10**9
_CHECK_BYTES = 16
_STAMP_BYTES = 32

Other = TypeVar("Other")


def known_digests(
    file: Path | None,
    listed: Iterable[Files],
    read: Callable[[Sequence[int]], Iterable[bytes | Other]],
    digest_bytes: int,
) -> tuple[UInt8[np.ndarray, "files bytes"], dict[int, Other]]:
    """The digest of each listed file, from `file` where its stamp is as it was, or read, and then kept in `file`.

    Returns the digests, and what else `read` said, by index; the digests of these are zeros.

    Args:
        file: where digests are kept; None to read all files.
        listed: regular files, or what `read` says something else about; gone through once.
        read: takes indices of files and gives, in this order, their digests, or another value, which is not kept.
        digest_bytes: the length of each digest.
    """
    began = time.time_ns()
    if file is None:
        stamps = np.zeros((sum(len(names) for _, names in listed), 4), np.int64)
    else:
        stamps = np.frombuffer(stamps_of_files(listed, cores()), np.int64).reshape(-1, 4)
    digests, others = np.zeros((len(stamps), digest_bytes), np.uint8), dict[int, Other]()
    found = np.zeros(len(stamps), bool)
    if file is not None:
        kept, kept_digests = _kept(file, digest_bytes)
        found, places = _find(kept, stamps)
        digests[found] = kept_digests[places[found]]
    unread = np.flatnonzero(~found)
    numbers = unread.tolist()
    for index, result in zip(numbers, read(numbers) if numbers else (), strict=True):
        if isinstance(result, bytes):
            digests[index] = np.frombuffer(result, np.uint8)
        else:
            others[index] = result
    changed = stamps[unread, 2:].max(axis=1, initial=0)
    found[unread] = (changed > 0) & (changed < began - GRANULARITY_NS)
    found[list(others)] = False
    if file is not None and found[unread].any():
        _keep(file, stamps[found], digests[found])
    return digests, others


def forget(cache_dir: Path) -> None:
    """Removes all digests, so that every file is read again."""
    remove(cache_dir / FOLDER)


def _find(
    kept: Int64[np.ndarray, "kept 4"], stamps: Int64[np.ndarray, "files 4"]
) -> tuple[Bool[np.ndarray, "files"], Int64[np.ndarray, "files"]]:
    """Whether each stamp is kept, and its place there; the kept ones are sorted by inode."""
    if not len(kept):
        return np.zeros(len(stamps), bool), np.zeros(len(stamps), np.int64)
    places = np.minimum(np.searchsorted(kept[:, 0], stamps[:, 0]), len(kept) - 1)
    return (kept[places] == stamps).all(axis=1), places


def _kept(file: Path, digest_bytes: int) -> tuple[Int64[np.ndarray, "kept 4"], UInt8[np.ndarray, "kept bytes"]]:
    """The stamps and digests in a file; none if it is not there or damaged."""
    try:
        written = file.read_bytes()
    except DAMAGE:
        written = b""
    content = written[_CHECK_BYTES:]
    row_bytes = _STAMP_BYTES + digest_bytes
    if len(content) % row_bytes or written[:_CHECK_BYTES] != _check(content):
        content = b""
    count = len(content) // row_bytes
    stamps = np.frombuffer(content, "<i8", 4 * count).reshape(count, 4)
    return stamps, np.frombuffer(content, np.uint8, offset=_STAMP_BYTES * count).reshape(count, digest_bytes)


def _keep(file: Path, stamps: Int64[np.ndarray, "files 4"], digests: UInt8[np.ndarray, "files bytes"]) -> None:
    order = np.argsort(stamps[:, 0], kind="stable")
    content = stamps[order].astype("<i8").tobytes() + digests[order].tobytes()
    with replaced_file(file) as temporary:
        temporary.write_bytes(_check(content) + content)


def _check(content: bytes) -> bytes:
    return blake2b(content, digest_size=_CHECK_BYTES).digest()

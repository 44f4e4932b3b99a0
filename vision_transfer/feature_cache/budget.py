"""The disk space that features may take, and that requested rows would add."""

import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from rich.filesize import decimal

from vision_transfer.data.rows import Rows
from vision_transfer.feature_cache.extraction import missing_rows
from vision_transfer.feature_cache.prefix import Prefix
from vision_transfer.feature_cache.store import FOLDER

# Without a budget features take at most this share of the free disk.
SHARE_OF_FREE_DISK = 0.5
BYTES_PER_GB = 10**9


@dataclass(frozen=True)
class Request:
    """Rows that a stage needs, of whatever layer; the name is that of the split and the variant."""

    name: str
    prefix: Prefix
    images: Rows
    digests: UInt8[np.ndarray, "examples 16"]


@dataclass(frozen=True)
class Room:
    """Bytes that features may add, and the reason for the limit."""

    bytes: int
    reason: str


def room(cache_dir: Path, budget_gb: float | None) -> Room:
    """Space for features in a cache folder; `budget_gb` is for all stores together, in 10⁹ bytes."""
    there = next(folder for folder in (cache_dir.absolute(), *cache_dir.absolute().parents) if folder.exists())
    free = shutil.disk_usage(there).free
    share = Room(int(free * SHARE_OF_FREE_DISK), f"half of the {decimal(free)} that are free")
    if budget_gb is None:
        return share
    taken = 0
    for file in (cache_dir / FOLDER).glob("*/*"):
        with suppress(FileNotFoundError):  # another process renamed or removed it
            taken += file.stat().st_size if file.is_file() else 0
    left = max(0, int(budget_gb * BYTES_PER_GB) - taken)
    budget = Room(left, f"config.features.budget_gb={budget_gb:g} less {decimal(taken)} that are taken")
    return min(share, budget, key=lambda room: room.bytes)


def all_bytes(requests: Sequence[Request], layer: str) -> dict[str, int]:
    """Bytes of all rows of each request, by its name."""
    return {request.name: len(request.digests) * request.prefix.row_bytes(layer) for request in requests}


def missing_bytes(requests: Sequence[Request], layer: str) -> dict[str, int]:
    """Bytes of the rows of each request that no store has yet; no array is read."""
    found = {}
    for request in requests:
        missing = missing_rows(request.digests, request.prefix.store(layer).keys())
        found[request.name] = len(missing) * request.prefix.row_bytes(layer)
    return found

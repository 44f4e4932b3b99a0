"""Feeds examples to the devices: all of them stay there if they fit, otherwise they are sent a chunk ahead."""

# JAX, Optax and Orbax type their functions on trees only in part.
# pyright: reportUnknownMemberType=false, reportUnknownLambdaType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingTypeStubs=false

import mmap
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int32, UInt32

from vision_transfer.data.rows import Rows, TakenRows
from vision_transfer.runtime.devices import own_part, replicate, split_columns, split_rows
from vision_transfer.training.step import Chunk, Examples, StepOrder

# An accelerator keeps the training data if it takes no more than this share of its memory.
RESIDENT_SHARE = 0.25
# Bytes of a chunk that is sent; two are under way at a time.
CHUNK_BYTES = 64 << 20
WILL_NEED = getattr(mmap, "MADV_WILLNEED", None)


@dataclass(frozen=True)
class TrainingRows:
    """Training data at the start of the program, on the host.

    Attributes:
        inputs: images or features; the variants of a bank one after the other, each with all examples.
        labels: `(rows,) int32`.
        ids: `(rows,) uint32`, what identifies each example in random draws.
        variants: how many variants there are of each example.
    """

    inputs: Rows
    labels: Int32[np.ndarray, "rows"]
    ids: UInt32[np.ndarray, "rows"]
    variants: int = 1

    @property
    def examples(self) -> int:
        """Number of examples, each counted once."""
        return self.inputs.shape[0] // self.variants


@dataclass(frozen=True)
class ResidentFeed:
    """Every device holds all rows; a chunk is only a list of their numbers."""

    mesh: Mesh
    examples: Examples
    resident: bool = True

    def chunk(self, order: StepOrder, start: int, count: int) -> Chunk:
        """The steps `start` to `start + count` of an epoch."""
        on_devices = StepOrder(
            split_columns(order.rows, self.mesh),
            split_columns(order.weights, self.mesh),
            replicate(order.rates, self.mesh),
        )
        return Chunk(self.examples, on_devices, start, count)

    def most_steps(self, order: StepOrder) -> int:
        """Largest number of steps in a chunk."""
        return len(order.rates)


@dataclass(frozen=True)
class StreamedFeed:
    """Rows stay on the host; each chunk carries its own, every device's part of each batch together."""

    mesh: Mesh
    rows: TrainingRows
    resident: bool = False

    def chunk(self, order: StepOrder, start: int, count: int) -> Chunk:
        """The steps `start` to `start + count` of an epoch, in buffers of equal shape for every chunk."""
        capacity, devices = self.most_steps(order), self.mesh.size
        batch = order.rows.shape[1]
        steps = np.minimum(np.arange(start, start + capacity), start + count - 1)
        # (steps, batch) → each device's rows of all steps, device after device
        by_device = order.rows[steps].reshape(capacity, devices, batch // devices).swapaxes(0, 1).reshape(-1)
        own = by_device[own_part(len(by_device), self.mesh)]
        will_need(self.rows.inputs, np.asarray(own))
        own_rows = np.arange(capacity * (batch // devices), dtype=np.int32).reshape(capacity, batch // devices)
        examples = Examples(
            *(split_rows(column[own], self.mesh) for column in (self.rows.inputs, self.rows.labels, self.rows.ids))
        )
        on_devices = StepOrder(
            split_columns(np.tile(own_rows, devices), self.mesh),
            split_columns(order.weights[steps], self.mesh),
            replicate(order.rates[steps], self.mesh),
        )
        return Chunk(examples, on_devices, 0, count)

    def most_steps(self, order: StepOrder) -> int:
        """Largest number of steps in a chunk."""
        row_bytes = int(np.prod(self.rows.inputs.shape[1:])) * self.rows.inputs.dtype.itemsize
        return max(1, min(len(order.rates), CHUNK_BYTES // (row_bytes * order.rows.shape[1])))


Feed = ResidentFeed | StreamedFeed


def make_feed(rows: TrainingRows, mesh: Mesh) -> Feed:
    """Holds the rows on the devices if they fit, otherwise streams them.

    Devices that share the host's memory (virtual CPU devices) are streamed to unless there is only one, since each
    would hold a copy of its own.
    """
    size = int(np.prod(rows.inputs.shape)) * rows.inputs.dtype.itemsize
    if size <= _room(mesh):
        columns = (rows.inputs[np.arange(rows.inputs.shape[0])], rows.labels, rows.ids)
        return ResidentFeed(mesh, Examples(*replicate(columns, mesh)))
    return StreamedFeed(mesh, rows)


def _room(mesh: Mesh) -> float:
    device = mesh.local_devices[0]
    if device.platform == "cpu":
        return CHUNK_BYTES
    limit: float = (device.memory_stats() or {}).get("bytes_limit", 0)
    return limit * RESIDENT_SHARE


def will_need(rows: Any, numbers: np.ndarray) -> None:
    """Asks the system for rows of a memory map with these numbers, which are taken soon, all at once.

    A row that is not in memory stops the thread that takes it until the disk has answered. Asked ahead, 3,900 to 4,300
    rows of 150 kB a second came instead of 1,400 to 1,500, in random order from a file of 1.8 GB (2 cores, AMD EPYC).
    Does nothing for an array that is no memory map (or some rows of one), or where the system cannot be asked.
    """
    if isinstance(rows, TakenRows):
        return will_need(rows.rows, rows.numbers[numbers])
    mapped = getattr(rows, "_mmap", None)
    if not isinstance(rows, np.memmap) or mapped is None or WILL_NEED is None or not rows.size:
        return
    row_bytes = rows.nbytes // len(rows)
    # NumPy maps from the last multiple of this size before the array.
    begin = rows.offset % mmap.ALLOCATIONGRANULARITY
    wanted = np.unique(numbers)
    firsts = wanted[np.flatnonzero(np.diff(wanted, prepend=-2) != 1)]
    lasts = wanted[np.flatnonzero(np.diff(wanted, append=-2) != 1)]
    for first, last in zip(firsts.tolist(), lasts.tolist(), strict=True):
        start, end = begin + first * row_bytes, begin + (last + 1) * row_bytes
        start -= start % mmap.PAGESIZE
        mapped.madvise(WILL_NEED, start, end - start)

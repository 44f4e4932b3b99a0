"""Feeds examples to the devices: they stay there if they fit, otherwise they are sent a chunk ahead."""

# JAX, Optax and Orbax type their functions on trees only in part.
# pyright: reportUnknownMemberType=false, reportUnknownLambdaType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingTypeStubs=false

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int32, UInt32

from vision_transfer.data.rows import Rows, will_need
from vision_transfer.runtime.devices import own_part, replicate, split_columns, split_parts, split_rows
from vision_transfer.training.step import Chunk, Examples, StepOrder

# An accelerator keeps the training data if it takes no more than this share of its memory.
RESIDENT_SHARE = 0.25
# Bytes of a chunk that is sent; two are under way at a time. On a CPU a chunk is a copy in the same memory.
CHUNK_BYTES, CPU_CHUNK_BYTES = 64 << 20, 16 << 20
# The place of rows: all on each device, a part on each device, or on the host, from which they are sent.
Placement = Literal["replicated", "split", "streamed"]


def chunk_bytes(mesh: Mesh) -> int:
    """Most bytes of a chunk for these devices."""
    return min(CHUNK_BYTES, CPU_CHUNK_BYTES) if mesh.local_devices[0].platform == "cpu" else CHUNK_BYTES


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

    @property
    def row_bytes(self) -> int:
        """Bytes of one row's inputs."""
        return int(np.prod(self.inputs.shape[1:])) * self.inputs.dtype.itemsize


@dataclass(frozen=True)
class ResidentFeed:
    """Every device holds all rows, or its part of them; a chunk is only a list of their numbers.

    Attributes:
        examples: on the devices; of several parts, `part_of` gives each.
        count: how many examples there are.
        parts: 1, or the number of devices.
    """

    mesh: Mesh
    examples: Examples
    count: int
    parts: int = 1

    @property
    def resident(self) -> bool:
        """Whether every device holds all rows."""
        return self.parts == 1

    def chunk(self, order: StepOrder, start: int, count: int) -> Chunk:
        """The steps `start` to `start + count` of an epoch."""
        variants, examples = order.rows // self.count, order.rows % self.count
        on_devices = StepOrder(
            split_columns(variants * _part_size(self.count, self.parts) + examples // self.parts, self.mesh),
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
        own, next_steps = self._own_rows(order, steps), np.arange(start + count, start + 2 * count)
        # The disk reads the next chunk while this one is copied, sent and computed with.
        will_need(self.rows.inputs, self._own_rows(order, next_steps[next_steps < len(order.rates)]))
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

    def _own_rows(self, order: StepOrder, steps: np.ndarray) -> np.ndarray:
        """The numbers of this host's rows of some steps: each device's of all steps, device after device."""
        devices, batch = self.mesh.size, order.rows.shape[1]
        by_device = order.rows[steps].reshape(len(steps), devices, batch // devices).swapaxes(0, 1).reshape(-1)
        return np.asarray(by_device[own_part(len(by_device), self.mesh)])

    def most_steps(self, order: StepOrder) -> int:
        """Largest number of steps in a chunk."""
        batch_bytes = self.rows.row_bytes * order.rows.shape[1]
        return max(1, min(len(order.rates), chunk_bytes(self.mesh) // batch_bytes))


Feed = ResidentFeed | StreamedFeed


def placement(rows: TrainingRows, mesh: Mesh, *, splittable: bool) -> Placement:
    """The place of rows: every device if all fit there, else, if they may be split, a part on each, else the host."""
    if _part_bytes(rows, 1) <= _room(mesh, 1):
        return "replicated"
    parts = mesh.size
    fits = 1 < parts <= rows.examples and _part_bytes(rows, parts) <= _room(mesh, parts)
    return "split" if splittable and fits else "streamed"


def make_feed(rows: TrainingRows, mesh: Mesh, where: Placement) -> Feed:
    """Puts rows on the devices, or keeps them on the host; split rows need batches drawn with `parts=mesh.size`."""
    match where:
        case "replicated":
            return ResidentFeed(mesh, Examples(*replicate(part_of(rows, 1, 0), mesh)), rows.examples)
        case "split":
            columns = split_parts(lambda part: part_of(rows, mesh.size, part), mesh)
            return ResidentFeed(mesh, Examples(*columns), rows.examples, mesh.size)
        case "streamed":
            return StreamedFeed(mesh, rows)


def part_of(rows: TrainingRows, parts: int, part: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs, labels and ids of the examples `part`, `part + parts`, … of each variant, as `dealt` divides them.

    All parts have one size, so that some end with the last example of all, which is never drawn there.
    """
    within = np.minimum(part + parts * np.arange(_part_size(rows.examples, parts)), rows.examples - 1)
    numbers = (rows.examples * np.arange(rows.variants)[:, None] + within).reshape(-1)
    will_need(rows.inputs, numbers)
    return rows.inputs[numbers], rows.labels[numbers], rows.ids[numbers]


def _part_size(examples: int, parts: int) -> int:
    return -(-examples // parts)


def _part_bytes(rows: TrainingRows, parts: int) -> int:
    return rows.variants * _part_size(rows.examples, parts) * rows.row_bytes


def _room(mesh: Mesh, parts: int) -> float:
    """Bytes of rows that each device may hold.

    The devices of a CPU share its memory, so that a host's have no more room for parts than it has for all rows.
    """
    device = mesh.local_devices[0]
    if device.platform == "cpu":
        return CHUNK_BYTES if parts == 1 else CHUNK_BYTES / len(mesh.local_devices)
    limit: float = (device.memory_stats() or {}).get("bytes_limit", 0)
    return limit * RESIDENT_SHARE

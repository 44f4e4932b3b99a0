"""Placement of arrays on devices, of this host or of all hosts, which form one axis that a batch is split along."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

BATCH_AXIS = "batch"
# On a CPU, XLA uses host memory in place if it is aligned to this many bytes, and copies it otherwise.
CPU_ALIGNMENT = 64


def local_mesh() -> Mesh:
    """A mesh of the devices of this host."""
    return Mesh(np.array(jax.local_devices()), (BATCH_AXIS,))


def global_mesh() -> Mesh:
    """A mesh of the devices of all hosts, host after host."""
    return Mesh(np.array(sorted(jax.devices(), key=lambda device: (device.process_index, device.id))), (BATCH_AXIS,))


def own_part(count: int, mesh: Mesh) -> slice:
    """The rows, of `count` that are split over a mesh, which this host's devices hold: all on a mesh of one host."""
    here = [place for place, device in enumerate(mesh.devices.flat) if device.process_index == jax.process_index()]
    each = count // mesh.size
    return slice(here[0] * each, (here[-1] + 1) * each)


def own_batch(batch_size: int, mesh: Mesh) -> tuple[Mesh, int]:
    """This host's devices of a mesh, and the batch that gives each as many rows as a batch of `batch_size` does."""
    if mesh.is_multi_process:
        return local_mesh(), padded_batch(batch_size, mesh) * len(jax.local_devices()) // mesh.size
    return mesh, batch_size


def padded_batch(batch_size: int, mesh: Mesh) -> int:
    """The batch size rounded up to a multiple of the number of devices."""
    return -(-batch_size // mesh.size) * mesh.size


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Copies the tree to every device of the mesh; the copies may be donated."""
    return _placed(tree, NamedSharding(mesh, PartitionSpec()))


def share(tree: Any, mesh: Mesh) -> Any:
    """Makes the tree readable on every device of the mesh; all devices of a CPU read the same memory.

    VGG16's weights and prepared kernels thus take 336 MB in all, not 336 MB per core. Never donate the result, and
    never write to the arrays passed in.
    """
    target = NamedSharding(mesh, PartitionSpec())
    if mesh.devices.flat[0].platform == "cpu":
        tree = jax.tree.map(partial(_readable_by_all, target), tree)
    return _placed(tree, target)


def split_rows(tree: Any, mesh: Mesh) -> Any:
    """Splits the first axis of the leaves across the devices; each host gives its `own_part` of the rows."""
    target = NamedSharding(mesh, PartitionSpec(BATCH_AXIS))
    if target.is_fully_addressable:
        return jax.device_put(tree, target)
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(target, np.asarray(leaf)), tree)


def split_parts(part: Callable[[int], Any], mesh: Mesh) -> Any:
    """The trees of all devices joined along the first axis of their leaves, each on its own device.

    `part` gives the tree of the device at a place of the mesh; all have the same shapes. It is called for the devices
    of this host, one after the other, so that the host holds no more than one of them.
    """
    target = NamedSharding(mesh, PartitionSpec(BATCH_AXIS))
    placed = [
        jax.block_until_ready(jax.device_put(part(place), device))
        for place, device in enumerate(mesh.devices.flat)
        if device.process_index == jax.process_index()
    ]

    def joined(*leaves: jax.Array) -> jax.Array:
        rows, *row = leaves[0].shape
        return jax.make_array_from_single_device_arrays((mesh.size * rows, *row), target, leaves)

    return jax.tree.map(joined, *placed)


def split_columns(tree: Any, mesh: Mesh) -> Any:
    """Splits the second axis of the leaves across the devices."""
    return _placed(tree, NamedSharding(mesh, PartitionSpec(None, BATCH_AXIS)))


def fetched(array: jax.Array) -> np.ndarray:
    """All values of an array on this host, wherever they are; all hosts call it."""
    if array.is_fully_addressable or array.is_fully_replicated:
        return np.asarray(array)
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


def device_peak_bytes() -> int | None:
    """Peak memory in use on any one local device so far, or None if the devices, such as CPUs, do not report it."""
    peaks = [(device.memory_stats() or {}).get("peak_bytes_in_use") for device in jax.local_devices()]
    return max((peak for peak in peaks if peak is not None), default=None)


def _placed(tree: Any, target: NamedSharding) -> Any:
    """The tree, which all hosts have whole, on the devices."""
    if target.is_fully_addressable:
        return jax.device_put(tree, target)
    return jax.tree.map(partial(_placed_leaf, target), tree)


def _placed_leaf(target: NamedSharding, leaf: Any) -> jax.Array:
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        return jax.device_put(leaf, target)
    # `device_put` would compare the values of all hosts: 0.9 s for 16 MB.
    values = np.asarray(leaf)
    return jax.make_array_from_callback(values.shape, target, lambda index: values[index])


def _readable_by_all(target: NamedSharding, leaf: Any) -> Any:
    """The leaf itself if all devices have it already, otherwise a host array that XLA need not copy."""
    if isinstance(leaf, jax.Array) and leaf.sharding.is_equivalent_to(target, leaf.ndim):
        return leaf
    # For an array on a CPU this is a view.
    values = np.asarray(leaf)
    if values.ctypes.data % CPU_ALIGNMENT == 0 and values.flags.c_contiguous:
        return values
    buffer = np.empty(values.nbytes + CPU_ALIGNMENT, np.uint8)
    start = -buffer.ctypes.data % CPU_ALIGNMENT
    aligned = buffer[start : start + values.nbytes].view(values.dtype).reshape(values.shape)
    aligned[...] = values
    return aligned

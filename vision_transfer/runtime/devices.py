"""Placement of arrays on the local devices, which form one axis that a batch is split along."""

from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vision_transfer.errors import UserError

BATCH_AXIS = "batch"
# On a CPU, XLA uses host memory in place if it is aligned to this many bytes, and copies it otherwise.
CPU_ALIGNMENT = 64


def local_mesh() -> Mesh:
    """A mesh of all local devices.

    Raises:
        UserError: the program was started on more than one host.
    """
    if jax.process_count() > 1:
        raise UserError(
            f"started on {jax.process_count()} hosts; only one host, with all of its devices, is supported so far"
        )
    return Mesh(np.array(jax.local_devices()), (BATCH_AXIS,))


def padded_batch(batch_size: int, mesh: Mesh) -> int:
    """The batch size rounded up to a multiple of the number of devices."""
    return -(-batch_size // mesh.size) * mesh.size


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Copies the tree to every device of the mesh; the copies may be donated."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def share(tree: Any, mesh: Mesh) -> Any:
    """Makes the tree readable on every device of the mesh; all devices of a CPU read the same memory.

    VGG16's weights and prepared kernels thus take 336 MB in all, not 336 MB per core. Never donate the result, and
    never write to the arrays passed in.
    """
    target = NamedSharding(mesh, PartitionSpec())
    if mesh.devices.flat[0].platform == "cpu":
        tree = jax.tree.map(partial(_readable_by_all, target), tree)
    return jax.device_put(tree, target)


def split_rows(tree: Any, mesh: Mesh) -> Any:
    """Splits the first axis of the leaves across the devices."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec(BATCH_AXIS)))


def split_columns(tree: Any, mesh: Mesh) -> Any:
    """Splits the second axis of the leaves across the devices."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec(None, BATCH_AXIS)))


def device_peak_bytes() -> int | None:
    """Peak memory in use on any one local device so far, or None if the devices, such as CPUs, do not report it."""
    peaks = [(device.memory_stats() or {}).get("peak_bytes_in_use") for device in jax.local_devices()]
    return max((peak for peak in peaks if peak is not None), default=None)


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

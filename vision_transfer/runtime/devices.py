"""The local devices as one axis over which a batch is spread."""

from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vision_transfer.errors import UserError

BATCH_AXIS = "batch"
# XLA on a CPU reads the host's memory itself where it begins at a multiple of this, and copies it elsewhere.
CPU_ALIGNMENT = 64


def local_mesh() -> Mesh:
    """A mesh of all local devices.

    Raises:
        UserError: the program runs on more than one host.
    """
    if jax.process_count() > 1:
        raise UserError(
            f"{jax.process_count()} hosts: training runs on one host for now, on all of its devices; start it on one"
        )
    return Mesh(np.array(jax.local_devices()), (BATCH_AXIS,))


def padded_batch(batch_size: int, mesh: Mesh) -> int:
    """The batch size, rounded up so that every device gets the same number of rows."""
    return -(-batch_size // mesh.size) * mesh.size


def replicate(tree: Any, mesh: Mesh) -> Any:
    """The tree on every device of the mesh, in memory of its own, so that it can be donated."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def share(tree: Any, mesh: Mesh) -> Any:
    """The tree on every device of the mesh, only to be read; the devices of a CPU all read the same memory.

    So VGG16's weights and prepared kernels take 336 MB and not 336 for each core. Never donate what this returns, nor
    write to the arrays that it was given.
    """
    target = NamedSharding(mesh, PartitionSpec())
    if mesh.devices.flat[0].platform == "cpu":
        tree = jax.tree.map(partial(_readable_by_all, target), tree)
    return jax.device_put(tree, target)


def split_rows(tree: Any, mesh: Mesh) -> Any:
    """The tree with the first axis of its leaves spread over the devices."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec(BATCH_AXIS)))


def split_columns(tree: Any, mesh: Mesh) -> Any:
    """The tree with the second axis of its leaves spread over the devices."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec(None, BATCH_AXIS)))


def _readable_by_all(target: NamedSharding, leaf: Any) -> Any:
    """The leaf where it is on all devices already, otherwise on the host, where XLA need not copy it."""
    if isinstance(leaf, jax.Array) and leaf.sharding.is_equivalent_to(target, leaf.ndim):
        return leaf
    # of an array on a CPU this is a view
    values = np.asarray(leaf)
    if values.ctypes.data % CPU_ALIGNMENT == 0 and values.flags.c_contiguous:
        return values
    room = np.empty(values.nbytes + CPU_ALIGNMENT, np.uint8)
    start = -room.ctypes.data % CPU_ALIGNMENT
    aligned = room[start : start + values.nbytes].view(values.dtype).reshape(values.shape)
    aligned[...] = values
    return aligned

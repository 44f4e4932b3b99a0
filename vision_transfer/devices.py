"""The local devices as one axis over which a batch is spread."""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vision_transfer.errors import UserError

BATCH_AXIS = "batch"


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
    """The tree on every device of the mesh."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def split_rows(tree: Any, mesh: Mesh) -> Any:
    """The tree with the first axis of its leaves spread over the devices."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec(BATCH_AXIS)))


def split_columns(tree: Any, mesh: Mesh) -> Any:
    """The tree with the second axis of its leaves spread over the devices."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec(None, BATCH_AXIS)))

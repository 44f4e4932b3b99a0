"""Inference over many rows, from any layer to any layer, in padded batches split over the devices."""

from collections.abc import Iterable, Iterator
from functools import partial

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float

from vision_transfer.data.rows import Rows
from vision_transfer.models.network import Network, Params, apply, prepared_kernels
from vision_transfer.runtime.devices import BATCH_AXIS, fetched, own_part, padded_batch, share, split_rows


def infer_batches(
    network: Network,
    variables: dict[str, Params],
    inputs: Rows,
    mesh: Mesh,
    *,
    batch_size: int,
    start: str | None = None,
    stop: str | None = None,
) -> Iterator[Float[np.ndarray, "batch ..."]]:
    """Outputs of layer `stop` for all rows, batch after batch, without padding; see `infer_stream`."""
    size = padded_batch(batch_size, mesh)
    firsts = range(0, inputs.shape[0], size)
    variables = on_devices(network, variables, mesh, batch_size=batch_size, start=start, stop=stop)
    own = own_part(size, mesh)
    padded = (_padded(inputs, first, size, own) for first in firsts)
    outcomes = infer_stream(network, variables, padded, mesh, start=start, stop=stop)
    for first, outputs in zip(firsts, outcomes, strict=True):
        yield outputs[: inputs.shape[0] - first]


def on_devices(
    network: Network,
    variables: dict[str, Params],
    mesh: Mesh,
    *,
    batch_size: int,
    start: str | None = None,
    stop: str | None = None,
) -> dict[str, Params]:
    """The variables on every device, with kernels prepared for batches of `padded_batch(batch_size, mesh)`."""
    batch = padded_batch(batch_size, mesh) // mesh.size
    prepared = prepared_kernels(network, variables, batch=batch, start=start, stop=stop)
    return share({**variables, "prepared": prepared}, mesh)


def infer_stream(
    network: Network,
    variables: dict[str, Params],
    batches: Iterable[np.ndarray],
    mesh: Mesh,
    *,
    start: str | None = None,
    stop: str | None = None,
) -> Iterator[Float[np.ndarray, "batch ..."]]:
    """Outputs of layer `stop` (None: logits) for each batch; the next one is read and sent while the devices compute.

    `variables` come from `on_devices`, and all batches have the size that they were prepared for. Where the mesh spans
    hosts, each gives its `own_part` of a batch, and gets the outputs of all.
    """
    waiting: Array | None = None
    for batch in batches:
        outputs = _infer(network, mesh, start, stop, variables, split_rows(np.ascontiguousarray(batch), mesh))
        if waiting is not None:
            yield fetched(waiting)
        waiting = outputs
    if waiting is not None:
        yield fetched(waiting)


def _padded(inputs: Rows, first: int, size: int, own: slice) -> np.ndarray:
    """This host's part of `size` rows starting at `first`; the last row is repeated as padding."""
    return inputs[np.minimum(np.arange(first, first + size), inputs.shape[0] - 1)[own]]


def infer(
    network: Network,
    variables: dict[str, Params],
    inputs: Rows,
    mesh: Mesh,
    *,
    batch_size: int,
    start: str | None = None,
    stop: str | None = None,
) -> Float[np.ndarray, "rows ..."]:
    """Outputs of layer `stop` (None: logits) for all rows, as one array; see `infer_batches`."""
    return np.concatenate(
        list(infer_batches(network, variables, inputs, mesh, batch_size=batch_size, start=start, stop=stop))
    )


@partial(jax.jit, static_argnames=("network", "mesh", "start", "stop"))
def _infer(
    network: Network, mesh: Mesh, start: str | None, stop: str | None, variables: dict[str, Params], inputs: Array
) -> Array:
    split = PartitionSpec(BATCH_AXIS)
    return jax.shard_map(
        partial(apply, network, start=start, stop=stop),
        mesh=mesh,
        in_specs=(PartitionSpec(), split),
        out_specs=split,
        check_vma=False,
    )(variables, inputs)

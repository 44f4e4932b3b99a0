"""The feature maps of many layers, averaged over their positions, from one pass through the network."""

from collections.abc import Iterator, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Real, UInt8

from vision_transfer.data.rows import Rows
from vision_transfer.feature_cache.extraction import check_free_space, missing_rows
from vision_transfer.feature_cache.prefix import Prefix
from vision_transfer.feature_cache.store import FOLDER, Store, open_store, write_shard
from vision_transfer.models.inference import on_devices
from vision_transfer.models.layers import (
    CONVOLUTIONS,
    Activate,
    AveragePool,
    BatchNorm,
    Block,
    GlobalAveragePool,
    MaxPool,
    PoolLayers,
    Row,
    has_blocks,
    stage_of,
)
from vision_transfer.models.network import Network, Params, Variables, apply
from vision_transfer.runtime.console import Advance, Screen
from vision_transfer.runtime.devices import BATCH_AXIS, padded_batch, split_rows
from vision_transfer.runtime.files import shared_folder
from vision_transfer.runtime.provenance import code_digest, json_digest

# Images whose averages are written at once: an interrupted pass loses at most so many.
SHARD_IMAGES = 512
POOLS_AND_CONVOLUTIONS = (MaxPool, AveragePool, *CONVOLUTIONS)
_THIS_FILE = "tasks/probe/pooled_features.py"


def probed_layers(backbone: Sequence[Row]) -> tuple[str, ...]:
    """Every pool and convolution, with the batch norm and activation after it; in a table of blocks only their outputs.

    The rows between blocks of such a table count where they end a stage.
    """
    only_outputs = has_blocks(backbone)
    found: list[str] = []
    last: Row | None = None
    for row, following in zip(backbone, (*backbone[1:], None), strict=True):
        last = last if isinstance(row, BatchNorm | Activate) else row
        ends_stage = following is None or stage_of(following) != stage_of(row)
        wanted = isinstance(last, Block) or ends_stage if only_outputs else isinstance(last, POOLS_AND_CONVOLUTIONS)
        averages = isinstance(row, GlobalAveragePool | PoolLayers)
        if wanted and not averages and not isinstance(following, BatchNorm | Activate):
            found.append(row.name)
    return tuple(found)


def pooled_features(
    prefix: Prefix, layers: Sequence[str], images: Rows, digests: UInt8[np.ndarray, "examples 16"], screen: Screen
) -> dict[str, Float[np.ndarray, "examples features"]]:
    """The averages of each layer's maps, by layer, in float32; missing ones are computed and added to the cache.

    `prefix` is without augmentation, `layers` have maps and are in the order of the network, and images have values
    0–255 and digests of their content.

    Raises:
        UserError: the disk has no room for the missing averages.
    """
    widths = tuple(prefix.row_shape(name)[-1] for name in layers)
    key = prefix.description(layers[-1]) | {
        "stored": "float32",
        "pooled": list(layers),
        "pooling": code_digest((_THIS_FILE,), without=()),
    }
    store = Store(prefix.folder / FOLDER / json_digest(key))
    what = f"averages of {len(layers)} layers"
    with shared_folder(store.path, f"computing {what}", screen):
        found = open_store(store, screen, remove_damaged=True)
        missing = missing_rows(digests, found.keys)
        if len(missing):
            check_free_space(store.path, what, len(missing), sum(widths) * np.dtype(np.float32).itemsize, otherwise="")
            store.describe({"backbone": prefix.backbone, "layer": what, "key": key})
            with screen.bar(f"Features of {len(layers)} layers", len(missing)) as advance:
                for first in range(0, len(missing), SHARD_IMAGES):
                    numbers = missing[first : first + SHARD_IMAGES]
                    rows = _averages(prefix, tuple(layers), images, numbers, advance)
                    write_shard(store, rows, digests[numbers])
            found = open_store(store, screen, remove_damaged=True)
        rows = found.rows(digests)[np.arange(len(digests))]
    return dict(zip(layers, np.split(rows, np.cumsum(widths)[:-1], axis=1), strict=True))


def _averages(
    prefix: Prefix, layers: tuple[str, ...], images: Rows, numbers: np.ndarray, advance: Advance
) -> Float[np.ndarray, "images channels"]:
    """The averages of the images with these numbers; the last image is repeated as padding."""
    size = padded_batch(prefix.batch_size, prefix.mesh)
    variables = on_devices(prefix.network, prefix.variables, prefix.mesh, batch_size=prefix.batch_size, stop=layers[-1])
    parts = []
    for first in range(0, len(numbers), size):
        places = np.minimum(np.arange(first, first + size), len(numbers) - 1)
        batch = split_rows(np.ascontiguousarray(images[numbers[places]]), prefix.mesh)
        parts.append(np.asarray(_infer(prefix.network, prefix.mesh, layers, variables, batch)))
        advance(min(size, len(numbers) - first))
    return np.concatenate(parts)[: len(numbers)]


@partial(jax.jit, static_argnames=("network", "mesh", "layers"))
def _infer(network: Network, mesh: Mesh, layers: tuple[str, ...], variables: dict[str, Params], images: Array) -> Array:
    """The averages of the layers' maps side by side in float32; each layer is computed once."""

    def averages(variables: dict[str, Params], images: Array) -> Float[Array, "batch channels"]:
        maps = _outputs_at(network, variables, images, layers)
        return jnp.concatenate([jnp.mean(values.astype(jnp.float32), axis=(1, 2)) for values in maps], axis=1)

    split = PartitionSpec(BATCH_AXIS)
    in_specs = (PartitionSpec(), split)
    return jax.shard_map(averages, mesh=mesh, in_specs=in_specs, out_specs=split, check_vma=False)(variables, images)


def _outputs_at(
    network: Network, variables: Variables, inputs: Real[Array, "batch ..."], layers: Sequence[str]
) -> Iterator[Float[Array, "batch ..."]]:
    """Outputs of several layers for images, in the order of the network; each layer is computed once."""
    start = None
    for layer in layers:
        inputs = apply(network, variables, inputs, start=start, stop=layer)
        yield inputs
        if layer != layers[-1]:
            start = network.after(layer)

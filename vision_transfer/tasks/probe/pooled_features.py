"""The maps of many layers, each averaged over its places, from one pass through the network."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, UInt8

from vision_transfer.features.extraction import check_free_space, missing_rows
from vision_transfer.features.prefix import Prefix
from vision_transfer.features.store import FOLDER, Store, open_store, row_keys, write_shard
from vision_transfer.models.inference import Rows, on_devices
from vision_transfer.models.layers import BatchNorm, Conv, Layer, MaxPool
from vision_transfer.models.network import Network, Params, outputs_at
from vision_transfer.runtime.console import Advance, Screen
from vision_transfer.runtime.devices import BATCH_AXIS, padded_batch, split_rows
from vision_transfer.runtime.provenance import code_digest, json_digest

# Images whose averages are written at once: what an interrupted pass loses at most.
SHARD_IMAGES = 512
_THIS_FILE = "tasks/probe/pooled_features.py"


@dataclass(frozen=True)
class Pooled:
    """Averages of the maps of several layers.

    Attributes:
        layers: names, from the input on.
        values: `(examples, channels of all layers) float32`, layer behind layer.
        widths: channels of each layer.
    """

    layers: tuple[str, ...]
    values: Float[np.ndarray, "examples channels"]
    widths: tuple[int, ...]

    def of(self, layer: str) -> Float[np.ndarray, "examples features"]:
        """The averages of one layer."""
        place = self.layers.index(layer)
        first = sum(self.widths[:place])
        return self.values[:, first : first + self.widths[place]]


def probed_layers(table: Sequence[Layer]) -> tuple[str, ...]:
    """Every convolution and pool; of a convolution with a batch norm behind it, the batch norm, which activates."""
    behind = (*table[1:], None)
    return tuple(
        layer.name
        for layer, following in zip(table, behind, strict=True)
        if isinstance(layer, MaxPool | BatchNorm) or (isinstance(layer, Conv) and not isinstance(following, BatchNorm))
    )


def pooled_features(
    prefix: Prefix, layers: Sequence[str], images: Rows, digests: UInt8[np.ndarray, "examples 16"], screen: Screen
) -> Pooled:
    """Averages of each layer's map for all images: from the cache as far as it goes, the rest computed and added to it.

    Args:
        prefix: what computes them, without augmentation.
        layers: names of layers with maps, in the order of the network.
        images: `(examples, height, width, channels)`, values 0–255.
        digests: content of each image.
        screen: for the progress bar.

    Raises:
        UserError: the rows that are missing are more than the disk has room for.
    """
    widths = tuple(prefix.row_shape(name)[-1] for name in layers)
    key = prefix.description(layers[-1]) | {
        "stored": "float32",
        "pooled": list(layers),
        "pooling": code_digest((_THIS_FILE,), without=()),
    }
    store, keys = Store(prefix.folder / FOLDER / json_digest(key)), row_keys(digests)
    what = f"averages of {len(layers)} layers"
    with store.growing(what, screen):
        found = open_store(store, screen, remove_damaged=True)
        missing = missing_rows(keys, found.place_of)
        if len(missing):
            check_free_space(store.path, what, len(missing), sum(widths) * np.dtype(np.float32).itemsize)
            store.describe({"backbone": prefix.backbone, "layer": what, "key": key})
            with screen.bar(f"Features of {len(layers)} layers", len(missing)) as advance:
                for first in range(0, len(missing), SHARD_IMAGES):
                    numbers = missing[first : first + SHARD_IMAGES]
                    rows = _averages(prefix, tuple(layers), images, numbers, advance)
                    write_shard(store, rows, [keys[number] for number in numbers])
            found = open_store(store, screen, remove_damaged=True)
        return Pooled(tuple(layers), found.rows(keys)[np.arange(len(keys))], widths)


def averages_of_layers(
    network: Network, layers: Sequence[str], variables: dict[str, Params], images: Array
) -> Float[Array, "batch channels"]:
    """The averages of several layers' maps, layer behind layer, float32; each layer is computed once.

    Args:
        network: the tables.
        layers: names of layers with maps, in the order of the network.
        variables: of at least these layers and those before.
        images: `(batch, height, width, channels)`, values 0–255.
    """
    maps = outputs_at(network, variables, images, layers)
    return jnp.concatenate([jnp.mean(values.astype(jnp.float32), axis=(1, 2)) for values in maps], axis=1)


def _averages(
    prefix: Prefix, layers: tuple[str, ...], images: Rows, numbers: np.ndarray, advance: Advance
) -> Float[np.ndarray, "images channels"]:
    """Of the images with these numbers; the last batch is filled with its last image."""
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
    split = PartitionSpec(BATCH_AXIS)
    return jax.shard_map(
        partial(averages_of_layers, network, layers),
        mesh=mesh,
        in_specs=(PartitionSpec(), split),
        out_specs=split,
        check_vma=False,
    )(variables, images)

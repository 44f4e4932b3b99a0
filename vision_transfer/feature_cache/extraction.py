"""Features of images, read from the store or computed and added to it shard by shard."""

import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int64, UInt8
from rich.filesize import decimal

from vision_transfer.data.dataset import find_digests
from vision_transfer.data.rows import Rows, TakenRows
from vision_transfer.errors import UserError
from vision_transfer.feature_cache.cacheable import cacheable_layers
from vision_transfer.feature_cache.prefix import Prefix
from vision_transfer.feature_cache.rows import FeatureRows
from vision_transfer.feature_cache.store import Store, open_store, write_shard
from vision_transfer.models.inference import infer_batches
from vision_transfer.runtime import hosts
from vision_transfer.runtime.console import Advance, Screen
from vision_transfer.runtime.devices import own_batch
from vision_transfer.runtime.files import shared_folder

# A shard is written when it has this many bytes or a row this old; an interruption loses no more.
SHARD_BYTES = 64 << 20
SHARD_SECONDS = 30.0


def features(
    prefix: Prefix, layer: str, images: Rows, digests: UInt8[np.ndarray, "examples 16"], screen: Screen
) -> FeatureRows:
    """Outputs of `layer` for all images; rows that the store does not have are computed and added to it.

    Missing rows are computed from the deepest earlier cacheable layer whose store has them, otherwise from the images:
    `(examples, height, width, channels)`, values 0–255, of the variant if the prefix has one.

    Raises:
        UserError: the disk has no room for the missing rows.
    """
    store = prefix.store(layer)
    with _held(store, layer, screen):
        first = hosts.is_first()
        found = open_store(store, screen, remove_damaged=first)
        missing = missing_rows(digests, found.keys)
        if hosts.several():
            # Each host computes its share; where hosts have a cache each, then the rows that the others computed.
            hosts.barrier()  # all have looked before any adds
            _compute(prefix, layer, images, digests, missing[hosts.own_share(len(missing))], screen)
            hosts.barrier()
            found = open_store(store, screen, remove_damaged=False)
            missing = missing_rows(digests, found.keys)
        if len(missing):
            _compute(prefix, layer, images, digests, missing, screen)
            found = open_store(store, screen, remove_damaged=first)
        return found.rows(digests)


@contextmanager
def _held(store: Store, layer: str, screen: Screen) -> Iterator[None]:
    """Holds a store's lock; of several hosts the first does, for all, before any of them looks into the store."""
    if hosts.is_first():
        with shared_folder(store.path, f"computing features of {layer}", screen):
            hosts.barrier()
            yield
            hosts.barrier()
    else:
        store.path.mkdir(parents=True, exist_ok=True)
        hosts.barrier()
        yield
        hosts.barrier()


def _compute(
    prefix: Prefix,
    layer: str,
    images: Rows,
    keys: UInt8[np.ndarray, "examples 16"],
    rows: np.ndarray,
    screen: Screen,
) -> None:
    """Computes rows on this host's devices, and adds them to the store."""
    if not len(rows):
        return
    store = prefix.store(layer)
    uncached = ", or compute the frozen layers in every step with --config.features.cache=False"
    check_free_space(store.path, f"features of {layer}", len(rows), prefix.row_bytes(layer), otherwise=uncached)
    store.describe({"backbone": prefix.backbone, "layer": layer, "key": prefix.description(layer)})
    wanted = keys[rows]
    start, source = _source(prefix, layer, TakenRows(images, rows), wanted, screen)
    network, variables, (mesh, size) = prefix.network, prefix.variables, own_batch(prefix.batch_size, prefix.mesh)
    batches = infer_batches(network, variables, source, mesh, batch_size=size, start=start, stop=layer)
    done = 0
    with screen.bar(f"Features of {layer}", len(wanted)) as advance:
        for shard in _shards(batches, advance):
            write_shard(store, shard.astype(prefix.stored_dtype), wanted[done : done + len(shard)])
            done += len(shard)


def missing_rows(
    keys: UInt8[np.ndarray, "examples 16"], present: UInt8[np.ndarray, "present 16"]
) -> Int64[np.ndarray, "missing"]:
    """The first row of each key that is not present, in order."""
    missing = np.flatnonzero(find_digests(keys, present) < 0)
    firsts = find_digests(keys[missing], keys[missing])
    return missing[firsts == np.arange(len(missing))]


def check_free_space(folder: Path, what: str, rows: int, row_bytes: int, *, otherwise: str) -> None:
    """Raises UserError if the disk has no room for so many rows; `otherwise` ends its list of what to do."""
    free = shutil.disk_usage(folder).free
    if rows * row_bytes > free:
        raise UserError(
            f"the {what} for {rows:,} images need {decimal(rows * row_bytes)}, and {decimal(free)} are free in "
            f"{folder.parent}. Free some space (--mode=cache lists what the cache holds, --prune=… removes from it), "
            f"or name another cache folder in VISION_TRANSFER_CACHE{otherwise}"
        )


def _source(
    prefix: Prefix, layer: str, images: Rows, keys: UInt8[np.ndarray, "wanted 16"], screen: Screen
) -> tuple[str | None, Rows]:
    """The first layer to run and its inputs: features of the deepest earlier layer with all of `keys`, or the images.

    Rows that were rounded when stored are not used: the results would depend on what happened to be cached.
    """
    unrounded = replace(prefix, dtype="float32")
    for earlier in cacheable_layers(prefix.network, layer):
        store = unrounded.store(earlier)
        if earlier == layer or not store.path.is_dir() or len(missing_rows(keys, store.keys())):
            continue
        found = open_store(store, screen, remove_damaged=False)
        if not len(missing_rows(keys, found.keys)):
            return prefix.network.after(earlier), found.rows(keys)
    return None, images


def _shards(
    batches: Iterable[Float[np.ndarray, "batch ..."]], advance: Advance
) -> Iterator[Float[np.ndarray, "rows ..."]]:
    """Batches concatenated to shards."""
    waiting: list[np.ndarray] = []
    since = time.monotonic()
    for batch in batches:
        advance(len(batch))
        waiting.append(batch)
        if sum(part.nbytes for part in waiting) >= SHARD_BYTES or time.monotonic() - since >= SHARD_SECONDS:
            yield np.concatenate(waiting)
            waiting, since = [], time.monotonic()
    if waiting:
        yield np.concatenate(waiting)

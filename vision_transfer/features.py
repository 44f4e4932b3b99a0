"""The cache of frozen prefixes: what a frozen layer makes of an image is computed once, and kept on disk by content.

A store holds the outputs of one layer under everything that determines them (weights of the prefix, layers,
preprocessing, size, precision, stored dtype, numeric code, platform). Its rows are keyed by the digest of the image, so
a subset of 100 images finds its rows in the store of 2,000. A store is a folder of shards that are only ever added,
each written whole; a killed extraction keeps all its finished shards.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import jax
import numpy as np
from filelock import FileLock
from jax.sharding import Mesh
from jaxtyping import Float, UInt8

from vision_transfer.augment.variants import Augmentation
from vision_transfer.files import file_sha256, remove_leftovers, replaced_file, write_json
from vision_transfer.inference import Rows, TakenRows, infer_batches
from vision_transfer.models.layers import GlobalAveragePool, MaxPool, layer_names
from vision_transfer.models.network import Network, Params
from vision_transfer.provenance import PREFIX_MODULES, code_digest, json_digest, params_sha256
from vision_transfer.screen import Screen

# Size of a shard: what an interrupted extraction loses at most.
SHARD_BYTES = 64 << 20
FOLDER = "features"


@dataclass(frozen=True)
class FeatureRows:
    """Rows spread over memory-mapped shards, taken in any order as one array.

    Attributes:
        shards: `(rows, ...)` arrays of equal row shape and dtype.
        places: `(rows, 2) int64`: shard and row in it of each row.
    """

    shards: tuple[np.ndarray, ...]
    places: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of rows, then the shape of one."""
        return (len(self.places), *self.shards[0].shape[1:])

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the stored values."""
        return self.shards[0].dtype

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """The rows with these numbers, in this order, copied into memory."""
        places = self.places[rows]
        taken = np.empty((len(places), *self.shape[1:]), self.dtype)
        for shard in np.unique(places[:, 0]):
            here = places[:, 0] == shard
            taken[here] = self.shards[shard][places[here, 1]]
        return taken


@dataclass(frozen=True)
class Prefix:
    """What features are computed by.

    Attributes:
        network: the tables; only the layers up to the cached one matter.
        variables: collections with at least the layers of the prefix.
        mesh: devices to compute on.
        batch_size: images per step.
        folder: root of all caches.
        augmentation: a bank's, where the features are those of one of its variants.
        variant: number of that variant.
    """

    network: Network
    variables: dict[str, Params]
    mesh: Mesh
    batch_size: int
    folder: Path
    augmentation: Augmentation | None = None
    variant: int = 0

    def description(self, layer: str) -> dict[str, object]:
        """All that determines the outputs of `layer`, as JSON values; its digest names the store."""
        layers = self.network.layers[: self.network.index(layer) + 1]
        names = set(layer_names(layers))
        return {
            "weights_sha256": {
                collection: params_sha256({name: leaves for name, leaves in by_layer.items() if name in names})
                for collection, by_layer in self.variables.items()
                if collection != "prepared"
            },
            "layers": [{"kind": type(row).__name__, **asdict(row)} for row in layers],
            "input_shape": list(self.network.input_shape),
            "preprocessing": self.network.preprocessing,
            "precision": self.network.numerics.name,
            "dtype": str(self.network.numerics.dtype),
            "variant": None if self.augmentation is None else [asdict(self.augmentation), self.variant],
            "platform": jax.default_backend(),
            "code": code_digest(PREFIX_MODULES if self.augmentation is None else (*PREFIX_MODULES, "augment")),
            "jax": jax.__version__,
        }


def concatenated(parts: Sequence[FeatureRows]) -> FeatureRows:
    """All rows of all parts, one part after the other; nothing is copied."""
    places, shards = [], []
    for part in parts:
        places.append(part.places + np.array([len(shards), 0]))
        shards += part.shards
    return FeatureRows(tuple(shards), np.concatenate(places))


def features(
    prefix: Prefix, layer: str, images: Rows, digests: UInt8[np.ndarray, "examples 16"], screen: Screen
) -> FeatureRows:
    """Outputs of `layer` for all images: from the store as far as it goes, the rest computed and added to it.

    Missing rows start from the deepest earlier pool whose store has them, otherwise from the images.

    Args:
        prefix: what computes them.
        layer: a pool of the frozen prefix.
        images: `(examples, height, width, channels)`, values 0–255; the variant's, where the prefix has one.
        digests: content of each image.
        screen: for the progress bar.
    """
    store = prefix.folder / FOLDER / json_digest(prefix.description(layer))
    store.mkdir(parents=True, exist_ok=True)
    keys = _keys(digests)
    with FileLock(store.with_suffix(".lock")):
        remove_leftovers(store)
        found = _open(store)
        missing = np.array([row for row, key in enumerate(keys) if key not in found.place_of], np.int64)
        missing = missing[np.unique(np.array(keys)[missing], return_index=True)[1]] if len(missing) else missing
        if len(missing):
            write_json(store / "description.json", prefix.description(layer))
            missing = np.sort(missing)
            wanted = [keys[row] for row in missing]
            start, source = _source(prefix, layer, TakenRows(images, missing), wanted)
            _extend(prefix, layer, start, source, wanted, store, screen)
            found = _open(store)
    return FeatureRows(found.shards, np.array([found.place_of[key] for key in keys], np.int64))


@dataclass(frozen=True)
class _Shards:
    shards: tuple[np.ndarray, ...]
    place_of: dict[str, tuple[int, int]]


def _open(store: Path) -> _Shards:
    """All intact shards of a store; a damaged one is removed, so that its rows are computed anew."""
    shards: list[np.ndarray] = []
    place_of: dict[str, tuple[int, int]] = {}
    for index_file in sorted(store.glob("*.json")):
        if index_file.name == "description.json":
            continue
        array_file = index_file.with_suffix(".npy")
        shard = _read_shard(index_file, array_file)
        if shard is None:
            index_file.unlink(missing_ok=True)
            array_file.unlink(missing_ok=True)
            continue
        keys, rows = shard
        place_of |= {key: (len(shards), row) for row, key in enumerate(keys)}
        shards.append(rows)
    return _Shards(tuple(shards), place_of)


def _read_shard(index_file: Path, array_file: Path) -> tuple[list[str], np.ndarray] | None:
    """Keys and rows of a shard, or None if it is damaged."""
    try:
        index = json.loads(index_file.read_text(encoding="utf-8"))
        if file_sha256(array_file) != index["sha256"]:
            return None
        rows = np.load(array_file, mmap_mode="r")
        return (index["rows"], rows) if len(index["rows"]) == len(rows) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _source(prefix: Prefix, layer: str, images: Rows, keys: list[str]) -> tuple[str | None, Rows]:
    """The first layer to run and its inputs: the deepest earlier pool whose store has all of `keys`, or the images."""
    names = layer_names(prefix.network.layers)
    for position in range(prefix.network.index(layer) - 1, -1, -1):
        row = prefix.network.layers[position]
        if not isinstance(row, MaxPool | GlobalAveragePool):
            continue
        store = prefix.folder / FOLDER / json_digest(prefix.description(row.name))
        if not store.is_dir():
            continue
        found = _open(store)
        if all(key in found.place_of for key in keys):
            places = np.array([found.place_of[key] for key in keys], np.int64)
            return names[position + 1], FeatureRows(found.shards, places)
    return None, images


def _extend(
    prefix: Prefix,
    layer: str,
    start: str | None,
    source: Rows,
    keys: list[str],
    store: Path,
    screen: Screen,
) -> None:
    batches = infer_batches(
        prefix.network,
        prefix.variables,
        source,
        prefix.mesh,
        batch_size=prefix.batch_size,
        start=start,
        stop=layer,
    )
    waiting: list[np.ndarray] = []
    done = 0
    with screen.bar(f"Features of {layer}", len(keys)) as advance:
        for batch in batches:
            waiting.append(batch)
            advance(len(batch))
            rows = sum(map(len, waiting))
            if rows * batch[0].nbytes >= SHARD_BYTES or done + rows == len(keys):
                _write_shard(store, np.concatenate(waiting), keys[done : done + rows])
                done += rows
                waiting = []


def _write_shard(store: Path, rows: Float[np.ndarray, "rows ..."], keys: list[str]) -> None:
    """The array first and its index last: without an index, a shard does not exist."""
    name = hashlib.sha256("".join(keys).encode()).hexdigest()[:16]
    array_file = store / f"{name}.npy"
    with replaced_file(array_file) as temporary, temporary.open("wb") as stream:
        np.save(stream, rows, allow_pickle=False)
    write_json(store / f"{name}.json", {"rows": keys, "sha256": file_sha256(array_file)})


def _keys(digests: UInt8[np.ndarray, "examples 16"]) -> list[str]:
    return [digest.tobytes().hex() for digest in digests]

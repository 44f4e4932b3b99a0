"""The frozen prefix that computes features, and the key of the store that follows from it."""

import math
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from vision_transfer.config.schema import AugmentConfig
from vision_transfer.feature_cache.store import FOLDER, Store
from vision_transfer.models.layers import description
from vision_transfer.models.network import Network, Params, params_of
from vision_transfer.runtime.jax_setup import is_deterministic
from vision_transfer.runtime.provenance import (
    PREFIX,
    PREFIX_HARMLESS,
    code_digest,
    json_digest,
    params_sha256,
    versions,
)


@dataclass(frozen=True)
class Prefix:
    """A frozen prefix with everything needed to compute and store its features.

    Attributes:
        network: only the layers up to the cached one matter.
        folder: root of all caches.
        augmentation: of the bank, if the features are those of its variant number `variant`.
        dtype: of the stored rows, `float32` or `bfloat16`.
        backbone: name of the network in listings of stores; not part of any key.
    """

    network: Network
    variables: dict[str, Params]
    mesh: Mesh
    batch_size: int
    folder: Path
    augmentation: AugmentConfig | None = None
    variant: int = 0
    dtype: str = "float32"
    backbone: str = ""

    @property
    def stored_dtype(self) -> np.dtype:
        """Dtype of stored rows: bfloat16 also if the network computes in it, since nothing is lost."""
        return jnp.dtype(jnp.bfloat16 if self.network.numerics.name == "bfloat16" else self.dtype)

    def description(self, layer: str) -> dict[str, object]:
        """Everything that determines the stored outputs of `layer`, as JSON values; its digest names the store."""
        rows = self.network.between(stop=layer)
        return {
            "weights_sha256": {
                collection: params_sha256(params_of(rows, by_layer))
                for collection, by_layer in self.variables.items()
                if collection != "prepared"
            },
            "rows": [description(row) for row in rows],
            "input_shape": list(self.network.input_shape),
            "preprocessing": self.network.preprocessing,
            "precision": self.network.numerics.name,
            "dtype": str(self.network.numerics.dtype),
            "stored": str(self.stored_dtype),
            "variant": None if self.augmentation is None else [asdict(self.augmentation), self.variant],
            "platform": jax.default_backend(),
            "device": self.mesh.devices.flat[0].device_kind,
            "deterministic": is_deterministic(),
            **computed_by(augmented=self.augmentation is not None),
        }

    def store(self, layer: str) -> Store:
        """The store of the outputs of `layer`."""
        return Store(self.folder / FOLDER / json_digest(self.description(layer)))

    def row_shape(self, layer: str) -> tuple[int, ...]:
        """Shape of the output of `layer` for one image."""
        return self.network.shape_after(layer)

    def row_bytes(self, layer: str) -> int:
        """Bytes of a stored row of `layer`."""
        return math.prod(self.row_shape(layer)) * self.stored_dtype.itemsize


def computed_by(*, augmented: bool) -> dict[str, object]:
    """The part of a key that changes with the program; a store with an old one is never used again."""
    return {"code": _code(augmented), **{name: versions()[name] for name in ("jax", "jaxlib")}}


@cache
def _code(augmented: bool) -> str:
    """Digest of the code that computes features; read once, since later edits do not change this process."""
    return code_digest((*PREFIX, "data/augmentation") if augmented else PREFIX, PREFIX_HARMLESS)

"""Which variant of an image is seen when: fresh ones, or a bank of fixed ones; and a bank's images as rows."""

from dataclasses import dataclass
from functools import partial

import jax
import numpy as np
from jaxtyping import Array, Float32, Int, Key, Real, UInt8, UInt32

from vision_transfer.data.augmentation.augment import augment_batch, bank_variant
from vision_transfer.data.augmentation.config import AugmentConfig

# Keeps the draws of augmentation apart from those of dropout, which come from the same key.
AUGMENTATION_STREAM = int.from_bytes(b"augm", "big")


@dataclass(frozen=True)
class Augmentation:
    """How training images are varied.

    Attributes:
        config: the operations.
        bank: number of fixed variants of each image; 0 for fresh ones in each epoch.
        bank_seed: seed of the variants, apart from the run's seed.
    """

    config: AugmentConfig
    bank: int = 0
    bank_seed: int = 0

    def apply(
        self,
        images: Real[Array, "batch height width channels"],
        example_ids: UInt32[Array, "batch"],
        stage_key: Key[Array, ""],
        epoch: int | Int[Array, ""],
    ) -> Float32[Array, "batch height width channels"]:
        """The variants that an epoch of a stage sees."""
        fresh = jax.random.fold_in(stage_key, AUGMENTATION_STREAM)
        key = jax.random.key(self.bank_seed) if self.bank else fresh
        return augment_batch(images, example_ids, key, bank_variant(epoch, self.bank), self.config)


@dataclass(frozen=True)
class BankRows:
    """One variant of all images, made when it is taken.

    Attributes:
        images: `(rows, height, width, channels) uint8`.
        example_ids: `(rows,) uint32`.
        augmentation: with a bank.
        variant: number of the variant.
    """

    images: UInt8[np.ndarray, "rows height width channels"]
    example_ids: UInt32[np.ndarray, "rows"]
    augmentation: Augmentation
    variant: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of rows, then the shape of one."""
        return self.images.shape

    @property
    def dtype(self) -> np.dtype:
        """Float32, values 0–255."""
        return np.dtype(np.float32)

    def __getitem__(self, rows: np.ndarray) -> Float32[np.ndarray, "chosen height width channels"]:
        """The variant of the images with these numbers."""
        return np.asarray(_variant(self.augmentation, self.images[rows], self.example_ids[rows], self.variant))


@partial(jax.jit, static_argnames="augmentation")
def _variant(augmentation: Augmentation, images: Array, example_ids: Array, variant: Int[Array, ""]) -> Array:
    # A bank's variants do not depend on the stage's key.
    return augmentation.apply(images, example_ids, jax.random.key(0), variant)

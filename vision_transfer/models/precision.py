"""Compute dtype and precision of products, given by one config value."""

from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp
from jax import lax

PrecisionName = Literal["float32", "tf32", "bfloat16"]


@dataclass(frozen=True)
class Numerics:
    """Dtype and precision of activations and products; parameters are always float32.

    `float32`: float32 with float32 products, which XLA must be told, since GPUs and TPUs otherwise round them.
    `tf32`: float32 with the device's fast products (TF32 on NVIDIA GPUs, three bfloat16 passes on TPUs).
    `bfloat16`: activations and products in bfloat16; losses and statistics stay float32.
    """

    name: PrecisionName = "float32"

    @property
    def dtype(self) -> jnp.dtype:
        """Dtype of activations."""
        return jnp.dtype(jnp.bfloat16 if self.name == "bfloat16" else jnp.float32)

    @property
    def precision(self) -> lax.Precision:
        """Precision of matrix products and convolutions."""
        return {
            "float32": lax.Precision.HIGHEST,
            "tf32": lax.Precision.HIGH,
            "bfloat16": lax.Precision.DEFAULT,
        }[self.name]


FLOAT32 = Numerics()

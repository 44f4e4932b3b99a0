"""What follows a convolution, in the tile or the chunk that it has just computed: ReLU and 2×2 max-pooling."""

from dataclasses import dataclass

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from vision_transfer.models.ops.pooling import (
    max_pool,
    route_to_winners,
    window_elements,
    window_maxima,
    window_winners,
)

POOL = 2


@dataclass(frozen=True)
class Epilogue:
    """Whether a ReLU and then a 2×2 max-pooling of stride 2 follow."""

    relu: bool
    pool: bool

    def rectify(self, values: Array) -> Array:
        """The ReLU where there is one."""
        return jnp.maximum(values, 0) if self.relu else values

    def apply(self, values: Array) -> Array:
        """Both, differentiable."""
        values = self.rectify(values)
        return max_pool(values, POOL) if self.pool else values

    def finish(self, values: Array, keep: bool) -> tuple[Array, Array | None]:
        """Both, and what `unfinish` needs where `keep`: the winners of the windows, or the rectified outputs."""
        values = self.rectify(values)
        if not self.pool:
            return values, values if keep and self.relu else None
        # The barrier keeps XLA from computing the convolution's last step again for each element of a window.
        elements = window_elements(POOL, lax.optimization_barrier(values))
        return window_maxima(elements), window_winners(elements, self.relu) if keep else None

    def unfinish(self, gradient: Array, kept: Array | None, height: int, width: int) -> Array:
        """Gradient of the convolution's (height, width) outputs, from that of what `finish` returned."""
        if self.pool and kept is not None:
            return route_to_winners(POOL, gradient, kept, height, width)
        return gradient if kept is None else jnp.where(kept > 0, gradient, 0)

    def bias_gradient(self, gradient: Array, kept: Array | None) -> Array:
        """The sum of `unfinish` over images and positions."""
        if kept is not None:
            passes = kept < POOL * POOL if self.pool else kept > 0
            gradient = jnp.where(passes, gradient, 0)
        return jnp.sum(gradient, (0, 1, 2))

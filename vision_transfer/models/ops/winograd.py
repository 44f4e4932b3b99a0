"""A 3×3 convolution by Winograd's method with its gradient, in chunks that stay in a CPU's cache.

All float32. The convolution, the gradient of its images (the same operation with kernels rotated by 180° and their
channels exchanged) and the gradient of its kernel (products of transformed images with transformed gradients) are
each (tile+2)² matrix products per chunk. XLA eliminates a gradient that is not used. (Automatic differentiation through
the tiles makes scatters, slower than XLA's own convolution.)

Measurements with JAX 0.10.2 on 2 cores of a shared machine (one core, 64 channels, 3 rows of 45 tiles of 4, unless
stated otherwise; the products alone take 400 µs):

- Layout (products, tiles, channels), for one batched matrix product: 160 to 190 GFLOP/s on 2 cores.
- Image transform of a whole 180×180×64 image on 2 cores: two passes of stacked sums 2.5 ms; one pass 4.3; one Kronecker
  product 8.8; updates in place 16.9. Now 55 + 73 µs, and 65 + 35 µs for the outputs.
- Chunks: whole batches take twice as long as one or two images in blocks 1 to 3; strips of a few tile rows are fastest
  for 64 and 128 channels; with 256 or more, strips that are too short read kernels again (11.7 ms an image, not 9.7).
- Tiles of 5 besides 4: 13 to 23 % fewer products if a map is a multiple of 5. Tiles of 6 are not exact enough.
- Pooling fused into tiles of 5, with windows across tiles, compiles in 3.2 s a layer: these are pooled in the chunk.
- No gain: oneDNN flags (not used by XLA for these operations), XNNPACK, single-threaded Eigen, vectors of 512 bits,
  two independent halves of a batch in one program. Optimization level 1 compiles faster and runs slower.
- Compiling: XLA compiles equal fused loops once, so layers of equal shape share code. A layer of 45×45×256 with all
  gradients takes 1.7 to 2.0 s: image transform 0.31, gradient transform 0.28, outputs 0.21 each, the rest for 30 small
  loops. Level 2 and `xla_llvm_disable_expensive_passes` change nothing there, level 1 saves a fifth to a third.
- A step inside a `fori_loop` of traced length takes the same time as one outside.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from vision_transfer.models.ops.microbatch import map_images, sum_images
from vision_transfer.models.ops.pooling import POOL, Epilogue, window_maxima, window_winners
from vision_transfer.models.ops.tiling import Tiling, gradient_chunk_tiles, plan
from vision_transfer.models.ops.winograd_transforms import (
    KERNEL_SIZE,
    interleave,
    transform_gradients,
    transform_images,
    transform_kernel,
    transform_products,
    transpose_transform_kernel,
)

HALO = KERNEL_SIZE - 1
RECTIFIED = Epilogue(relu=True, pool=False)
# Name, for `jax.checkpoint`, of the places of the maxima in pooled windows.
WINNERS = "winners"


@dataclass(frozen=True)
class Operation:
    """A convolution apart from its arrays: outputs per tile and axis, zeros around images, what follows the bias."""

    tile: int
    padding: int
    epilogue: Epilogue


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def winograd_convolution(
    operation: Operation,
    images: Float[Array, "batch height width inputs"],
    kernel: Float[Array, "3 3 inputs outputs"],
    bias: Float[Array, "outputs"],
    prepared: Float[Array, "products inputs outputs"] | None,
) -> Float[Array, "batch new_height new_width outputs"]:
    """The convolution, bias and epilogue; `prepared` is `transform_kernel(kernel, tile)` or None."""
    return _operate(operation, images, kernel, bias, prepared, keep=False)[0]


def _forward(operation, images, kernel, bias, prepared):
    outputs, kept = _operate(operation, images, kernel, bias, prepared, keep=True)
    if operation.epilogue.pool:
        kept = checkpoint_name(kept, WINNERS)
    return outputs, (images, kernel, prepared, outputs if operation.epilogue == RECTIFIED else kept)


def _backward(operation, residuals, gradient):
    images, kernel, prepared, kept = residuals
    tile, epilogue = operation.tile, operation.epilogue
    forward = plan(images.shape, operation.padding, tile)
    incoming = (gradient, kept)

    def unfinish(part: tuple[Array, Array | None]) -> Array:
        # Without the barrier XLA routes gradients again in every term of a sum.
        return lax.optimization_barrier(epilogue.unfinish(*part, forward.height, forward.width))

    output_shape = (len(images), forward.height, forward.width)
    turned = transform_kernel(kernel[::-1, ::-1].swapaxes(2, 3), tile)
    back = plan(output_shape, HALO - operation.padding, tile)

    def gradient_of_images(part: tuple[Array, Array | None]) -> Array:
        return _convolve(unfinish(part), turned, back, interleave, shrink=1)

    wide = plan(
        images.shape, operation.padding, tile, chunk_tiles=gradient_chunk_tiles(kernel.shape[2], kernel.shape[3])
    )

    def gradient_of_products(part: tuple[Array, tuple[Array, Array | None]]) -> Array:
        return _correlate(part[0], unfinish(part[1]), wide)

    products_gradient = sum_images(gradient_of_products, wide.images, (images, incoming))
    return (
        map_images(gradient_of_images, back.images, incoming),
        transpose_transform_kernel(products_gradient, tile),
        epilogue.bias_gradient(gradient, kept),
        None if prepared is None else jnp.zeros_like(prepared),
    )


winograd_convolution.defvjp(_forward, _backward)


def _operate(
    operation: Operation, images: Array, kernel: Array, bias: Array, prepared: Array | None, keep: bool
) -> tuple[Array, Array | None]:
    """Outputs and, if they are pooled and `keep`, the winners of the windows."""
    tile, epilogue = operation.tile, operation.epilogue
    tiling = plan(images.shape, operation.padding, tile, pool=epilogue.pool)
    products = transform_kernel(kernel, tile) if prepared is None else prepared

    def finish(columns: list[Array]) -> tuple[Array, Array | None]:
        columns = [epilogue.rectify(column + bias) for column in columns]
        if not epilogue.pool:
            return interleave(columns), None
        if tile % POOL:
            return epilogue.finish(interleave(columns), keep)
        return _pool_in_tile(columns, epilogue, keep)

    def convolve(group: Array) -> tuple[Array, Array | None]:
        return _convolve(group, products, tiling, finish, POOL if epilogue.pool else 1)

    return map_images(convolve, tiling.images, images)


def _pool_in_tile(columns: list[Array], epilogue: Epilogue, keep: bool) -> tuple[Array, Array | None]:
    """Maxima and, if `keep`, winners, before anything is written. (Windows across tiles compile ten times slower.)"""
    windows = [
        [columns[left + right][:, :, below::POOL] for below in range(POOL) for right in range(POOL)]
        for left in range(0, len(columns), POOL)
    ]
    maxima = interleave([window_maxima(window) for window in windows])
    return maxima, interleave([window_winners(window, epilogue.relu) for window in windows]) if keep else None


def _convolve(images: Array, products: Array, tiling: Tiling, finish: Callable[[list[Array]], Any], shrink: int) -> Any:
    """The convolution of one chunk by strips; `finish` turns columns of tiles into outputs smaller by `shrink`."""
    padded = _pad(images, tiling.padding, tiling.covered, HALO)

    def convolve_strip(index: Array) -> Any:
        transformed = transform_images(_strip(padded, tiling, index, HALO), tiling.tile)
        return finish(transform_products(_multiply(transformed, products), tiling.grid, tiling.tile))

    if tiling.strips == 1:
        outputs = convolve_strip(jnp.int32(0))
    else:
        strips = lax.map(convolve_strip, jnp.arange(tiling.strips))
        outputs = jax.tree.map(lambda values: values.reshape(1, -1, *values.shape[3:]), strips)
    return jax.tree.map(lambda values: values[:, : tiling.height // shrink, : tiling.width // shrink], outputs)


def _correlate(images: Array, gradient: Array, tiling: Tiling) -> Array:
    """Sum over the tiles of a chunk's images of the products of transformed images with transformed gradients."""
    padded = _pad(images, tiling.padding, tiling.covered, HALO)
    gradient = _pad(gradient, 0, tiling.covered, 0)

    def correlate_strip(index: Array) -> Array:
        left = transform_images(_strip(padded, tiling, index, HALO), tiling.tile)
        right = transform_gradients(_strip(gradient, tiling, index, 0), tiling.tile)
        return lax.dot_general(left, right, (((1,), (1,)), ((0,), (0,))), precision=lax.Precision.HIGHEST)

    if tiling.strips == 1:
        return correlate_strip(jnp.int32(0))
    zeros = jnp.zeros(((tiling.tile + HALO) ** 2, images.shape[-1], gradient.shape[-1]), images.dtype)
    return lax.fori_loop(0, tiling.strips, lambda index, total: total + correlate_strip(index), zeros)


def _pad(images: Array, before: int, covered: tuple[int, int], halo: int) -> Array:
    """Pads with zeros, or crops at the end, to `covered` plus `halo`. With the barrier that is one copy, made once."""
    margins = [
        (before, whole + halo - before - extent, 0) for whole, extent in zip(covered, images.shape[1:3], strict=True)
    ]
    if all(margin == (0, 0, 0) for margin in margins):
        return images
    padded = lax.pad(images, jnp.zeros((), images.dtype), [(0, 0, 0), *margins, (0, 0, 0)])
    return lax.optimization_barrier(padded)


def _strip(padded: Array, tiling: Tiling, index: Array, halo: int) -> Array:
    if tiling.strips == 1:
        return padded
    rows = tiling.rows * tiling.tile
    strip = lax.dynamic_slice_in_dim(padded, index * rows, rows + halo, axis=1)
    # Without the barrier XLA reads the strip through its index arithmetic in every term of a sum.
    return lax.optimization_barrier(strip)


def _multiply(left: Array, right: Array) -> Array:
    return lax.dot_general(left, right, (((2,), (1,)), ((0,), (0,))), precision=lax.Precision.HIGHEST)

"""The convolution for a CPU where Winograd's method is no faster: few channels, tiny maps, other sizes and strides.

XLA's gradient of the kernel is a convolution with a window as large as the map. On a CPU it leaves the fast path inside
a loop, where training steps run: 1,546 ms instead of 51 ms for 32 maps of 3×3×512, 7,704 instead of 88 for 4×4×512,
19 ms instead of 1.4 for one image of a 150×150×3→32 first layer (JAX 0.10.2, 2 cores, a busy machine). So here the
gradient of the kernel is a matrix product of patches. With pooling the forward pass is one too, a few images at a time,
so that only pooled outputs leave the cache: 1.2 ms instead of 2.8 for that layer. Without pooling XLA's convolution is
faster (2.3 ms instead of 3.8 for 180×180×3→64).

With strides XLA's gradient of the images is a convolution of a gradient with zeros in between, 3 to 7 times as slow as
the product that gives the gradient of patches, and the sums of these.
"""

import math
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from vision_transfer.models.ops.microbatch import map_images, sum_images
from vision_transfer.models.ops.pooling import Epilogue
from vision_transfer.models.ops.windows import Margins, Strides, output_extents, pad_map, window_elements_at

# With fewer positions a product of patches is faster than XLA's convolution in the forward pass too.
LEAST_POSITIONS = 25
# With this many channels XLA's convolution is faster although its outputs leave the cache before they are pooled.
MANY_CHANNELS = 16
# With a stride, a product of patches up to this size is faster: 1.2 ms instead of 1.9 for 224×224×3→32 of 3×3 and 2.
SMALL_PATCH = 48
# Bytes of patches that are made at a time, to stay in cache.
PATCH_BYTES = 4 << 20
PRECISION = lax.Precision.HIGHEST
NO_EPILOGUE = Epilogue(relu=False, pool=False)


@dataclass(frozen=True)
class Placement:
    """Zeros around the images, what follows the bias, and steps between windows."""

    margins: Margins
    epilogue: Epilogue
    strides: Strides = (1, 1)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def products_convolution(
    placement: Placement,
    images: Float[Array, "batch height width inputs"],
    kernel: Float[Array, "kernel_height kernel_width inputs outputs"],
    bias: Float[Array, "outputs"],
) -> Float[Array, "batch new_height new_width outputs"]:
    """Convolution, bias and epilogue."""
    return _operate(placement, images, kernel, bias, keep=False)[0]


def _forward(placement, images, kernel, bias):
    outputs, kept = _operate(placement, images, kernel, bias, keep=True)
    return outputs, (images, kernel, kept)


def _backward(placement, residuals, gradient):
    images, kernel, kept = residuals
    epilogue = placement.epilogue
    height, width = _output_extents(placement, images.shape, kernel.shape)
    outgoing = epilogue.unfinish(gradient, kept, height, width)
    images_gradient = _images_gradient(placement, images, kernel, outgoing)

    def gradient_of_kernel(part: tuple[Array, tuple[Array, Array | None]]) -> Array:
        patches = _patches(placement, part[0], kernel.shape)
        outgoing = epilogue.unfinish(*part[1], height, width)
        # Without the barrier the product evaluates the routing's expressions instead of reading rows of outputs.
        return jnp.einsum("bhwp,bhwo->po", patches, lax.optimization_barrier(outgoing), precision=PRECISION)

    group = _group(placement, images.shape, kernel.shape)
    kernel_gradient = sum_images(gradient_of_kernel, group, (images, (gradient, kept)))
    return images_gradient, kernel_gradient.reshape(kernel.shape), epilogue.bias_gradient(gradient, kept)


products_convolution.defvjp(_forward, _backward)


def _images_gradient(placement: Placement, images: Array, kernel: Array, outgoing: Array) -> Array:
    if placement.strides == (1, 1):
        turned = kernel[::-1, ::-1].swapaxes(2, 3)
        (above, below), (left, right) = placement.margins
        rows, columns = kernel.shape[0] - 1, kernel.shape[1] - 1
        back = ((rows - above, rows - below), (columns - left, columns - right))
        bias = jnp.zeros(turned.shape[-1], kernel.dtype)
        return products_convolution(Placement(back, NO_EPILOGUE), outgoing, turned, bias)
    _, sum_patches = jax.vjp(lambda images: _patches(placement, images, kernel.shape), images)
    products = jnp.einsum("bhwo,po->bhwp", outgoing, kernel.reshape(-1, kernel.shape[-1]), precision=PRECISION)
    return sum_patches(lax.optimization_barrier(products))[0]


def _operate(placement: Placement, images: Array, kernel: Array, bias: Array, keep: bool) -> tuple[Array, Array | None]:
    epilogue = placement.epilogue
    height, width = _output_extents(placement, images.shape, kernel.shape)
    pooled_in_cache = epilogue.pool and images.shape[-1] < MANY_CHANNELS
    small_patches = placement.strides != (1, 1) and math.prod(kernel.shape[:3]) <= SMALL_PATCH
    if height * width >= LEAST_POSITIONS and not pooled_in_cache and not small_patches:
        outputs = lax.conv_general_dilated(
            images,
            kernel,
            window_strides=placement.strides,
            padding=placement.margins,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=PRECISION,
        )
        return epilogue.finish(outputs + bias, keep)

    def by_patches(group: Array) -> tuple[Array, Array | None]:
        patches = _patches(placement, group, kernel.shape)
        products = jnp.einsum("bhwp,po->bhwo", patches, kernel.reshape(-1, kernel.shape[-1]), precision=PRECISION)
        return epilogue.finish(products + bias, keep)

    return map_images(by_patches, _group(placement, images.shape, kernel.shape), images)


def _patches(placement: Placement, images: Array, kernel_shape: tuple[int, ...]) -> Array:
    """`(batch, new_height, new_width, kernel_height·kernel_width·inputs)`, in the order of a kernel's axes."""
    extents = _output_extents(placement, images.shape, kernel_shape)
    padded = pad_map(images, placement.margins)
    shifted = [
        window_elements_at(padded, (row, column), placement.strides, extents)
        for row in range(kernel_shape[0])
        for column in range(kernel_shape[1])
    ]
    return jnp.concatenate(shifted, axis=-1)


def _group(placement: Placement, image_shape: tuple[int, ...], kernel_shape: tuple[int, ...]) -> int:
    """Number of images whose patches are made at a time: a divisor of the batch."""
    height, width = _output_extents(placement, image_shape, kernel_shape)
    patch = kernel_shape[0] * kernel_shape[1] * kernel_shape[2]
    most = PATCH_BYTES // (height * width * patch * jnp.float32.dtype.itemsize)
    batch = image_shape[0]
    return max(count for count in range(1, batch + 1) if batch % count == 0 and (count == 1 or count <= most))


def _output_extents(
    placement: Placement, image_shape: tuple[int, ...], kernel_shape: tuple[int, ...]
) -> tuple[int, int]:
    return output_extents(placement.margins, image_shape[1:3], kernel_shape[:2], placement.strides)

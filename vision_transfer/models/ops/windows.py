"""The places of a convolution's windows on a map: strides, padding, output extents, and the slices they read."""

from typing import Literal

from jax import lax
from jaxtyping import Array

Margin = tuple[int, int]
# Zeros (before, after) the rows and the columns.
Margins = tuple[Margin, Margin]
Strides = tuple[int, int]
WindowPadding = Literal["valid", "same"] | Margins


def margins_of(padding: WindowPadding, extents: tuple[int, ...], sizes: tuple[int, ...], strides: Strides) -> Margins:
    """Zeros around maps of `extents` (height, width) for kernels of `sizes`.

    "same" is TensorFlow's: ⌈extent / stride⌉ outputs, and an odd zero comes after. With stride 2 the zeros therefore
    depend on the extent, where PyTorch's networks have explicit ones.
    """
    if padding == "valid":
        return (0, 0), (0, 0)
    if padding == "same":
        rows, columns = (_same(extents[axis], sizes[axis], strides[axis]) for axis in range(2))
        return rows, columns
    return padding


def output_extents(
    margins: Margins, extents: tuple[int, ...], sizes: tuple[int, ...], strides: Strides
) -> tuple[int, int]:
    """Height and width of the outputs."""
    height, width = ((extents[axis] + sum(margins[axis]) - sizes[axis]) // strides[axis] + 1 for axis in range(2))
    return height, width


def grid_windows(extent: int, count: int) -> tuple[int, int, int]:
    """Number, size and stride of the cells of a grid on an extent: `count` equal windows that cover it.

    They overlap where the extent cannot be divided; an extent of fewer elements has a cell for each.
    """
    count = min(count, extent)
    stride = extent // count
    return count, extent - (count - 1) * stride, stride


def is_known(image_shape: tuple[int, ...]) -> bool:
    """Whether loops can be planned: the batch is not empty, and no size symbolic, as in exported programs."""
    return all(isinstance(extent, int) and extent > 0 for extent in image_shape)


def pad_map(images: Array, margins: Margins) -> Array:
    """Images with zeros around; negative margins crop."""
    if margins == ((0, 0), (0, 0)):
        return images
    none = (0, 0, 0)
    zero = lax.full((), 0, images.dtype)
    return lax.pad(images, zero, [none, *((before, after, 0) for before, after in margins), none])


def window_elements_at(padded: Array, place: tuple[int, int], strides: Strides, extents: tuple[int, int]) -> Array:
    """The element at `place` (row, column) of every window, `extents` windows down and across."""
    ends = [start + (count - 1) * stride + 1 for start, count, stride in zip(place, extents, strides, strict=True)]
    batch, channels = padded.shape[0], padded.shape[3]
    return lax.slice(padded, (0, *place, 0), (batch, *ends, channels), (1, *strides, 1))


def _same(extent: int, size: int, stride: int) -> Margin:
    outputs = -(-extent // stride)
    total = max((outputs - 1) * stride + size - extent, 0)
    return total // 2, total - total // 2

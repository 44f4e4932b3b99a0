"""For teaching: classic, unlearnt filters (Sobel, Haar, Gabor), and convolution and pooling on one channel."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Real
from numpy.lib.stride_tricks import sliding_window_view

# A Gabor kernel ends where its Gaussian has fallen to 1 % of its peak.
GABOR_DEVIATIONS = 3.0
# Weights of ITU-R BT.601, which Pillow uses too.
LUMA = (0.299, 0.587, 0.114)

# Waves per pixel, degrees and pixels; the narrowest under the longest wave still responds to plain brightness with only
# exp(-2π²f²σ²) = 6 % of its response to stripes.
GABOR_FREQUENCIES = (0.15, 0.25)
GABOR_ANGLES = (0, 45, 90, 135)
GABOR_WIDTHS = (2.5, 4.0)
HAAR_SIZES = (2, 4, 8)
# Stride of the strided convolution, and size of the pooled windows.
STEP = 2


@dataclass(frozen=True)
class Kernel:
    """A filter: a name for titles, and its values.

    The response at a pixel is the sum of the products with the pixels around it (correlation, as in a convolutional
    network: nothing is flipped).
    """

    name: str
    values: Float32[np.ndarray, "kernel_height kernel_width"]


def sobel_kernels() -> list[Kernel]:
    """Sobel's derivatives across vertical and horizontal edges, with weights 1, 2, 1 (Sobel and Feldman 1968)."""
    smooth, difference = np.array([1, 2, 1], np.float32), np.array([-1, 0, 1], np.float32)
    return [
        Kernel("sobel, vertical edges", np.outer(smooth, difference)),
        Kernel("sobel, horizontal edges", np.outer(difference, smooth)),
    ]


def haar_kernels(sizes: Sequence[int] = HAAR_SIZES) -> list[Kernel]:
    """Haar's rectangles: a bright half beside, above or diagonal to a dark one (Viola and Jones 2001, figure 1).

    Sizes are even widths of the square in pixels; values are ±1 / size², so that all sizes respond alike.
    """
    kernels = []
    for size in sizes:
        half = np.repeat(np.array([-1, 1], np.float32), size // 2)
        flat = np.ones(size, np.float32)
        kernels += [
            Kernel(f"haar, vertical, {size} px", np.outer(flat, half) / size**2),
            Kernel(f"haar, horizontal, {size} px", np.outer(half, flat) / size**2),
            Kernel(f"haar, diagonal, {size} px", np.outer(half, half) / size**2),
        ]
    return kernels


def gabor_kernel(frequency: float, angle: float, width: float) -> Float32[np.ndarray, "size size"]:
    """A wave under a round Gaussian, its real part: exp(-(x²+y²)/2σ²)/(2πσ²) · cos(2πf(x cos θ + y sin θ)).

    The frequency f is in waves per pixel, the width σ in pixels, and the angle θ in degrees, clockwise from the axis to
    the right; 0 responds to vertical stripes.
    """
    reach = math.ceil(GABOR_DEVIATIONS * width)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float64)
    turned = x * math.cos(math.radians(angle)) + y * math.sin(math.radians(angle))
    envelope = np.exp(-(x**2 + y**2) / (2 * width**2)) / (2 * math.pi * width**2)
    return (envelope * np.cos(2 * math.pi * frequency * turned)).astype(np.float32)


def filter_banks() -> dict[str, list[Kernel]]:
    """All banks by name; the angles of the Gabor kernels vary fastest."""
    gabor = [
        Kernel(f"gabor, {frequency:g} per px, σ {width:g} px, {angle:g}°", gabor_kernel(frequency, angle, width))
        for frequency in GABOR_FREQUENCIES
        for width in GABOR_WIDTHS
        for angle in GABOR_ANGLES
    ]
    return {"sobel": sobel_kernels(), "haar": haar_kernels(), "gabor": gabor}


def grey(image: Real[np.ndarray, "height width channels"]) -> Float32[np.ndarray, "height width"]:
    """Brightness 0–1 of an RGB or grey image of 0–255."""
    pixels = image.astype(np.float32) / 255
    return pixels[..., 0] if image.shape[-1] == 1 else pixels @ np.array(LUMA, np.float32)


def responses(
    brightness: Float[np.ndarray, "height width"], kernels: Sequence[Kernel]
) -> Float32[np.ndarray, "kernels height width"]:
    """Response of each kernel at each pixel; the image is mirrored at its edges."""
    from scipy.ndimage import correlate

    wide = brightness.astype(np.float64)
    # scipy, too, has an even kernel's centre right of and below its middle
    return np.stack([correlate(wide, kernel.values.astype(np.float64), mode="reflect") for kernel in kernels]).astype(
        np.float32
    )


def operations(
    image: Float[np.ndarray, "height width"], kernel: Float[np.ndarray, "kernel_height kernel_width"]
) -> dict[str, Float32[np.ndarray, "new_height new_width"]]:
    """Outputs, by name, of convolutions without padding, with zero padding and with stride 2, and of 2×2 pooling.

    As in all networks, the kernel is not flipped (a correlation), and pixels that do not fill a window are dropped.

    The image has one channel and is at least as large as the kernel, which has an odd height and width.
    """
    values, weights = image.astype(np.float32), kernel.astype(np.float32)
    margins = [(side // 2, side // 2) for side in weights.shape]
    valid = np.sum(sliding_window_view(values, weights.shape) * weights, axis=(2, 3))
    same = np.sum(sliding_window_view(np.pad(values, margins), weights.shape) * weights, axis=(2, 3))
    windows = sliding_window_view(values, (STEP, STEP))[::STEP, ::STEP]
    return {
        "convolution, no padding (valid)": valid,
        "convolution, zero padding (same)": same,
        f"convolution, no padding, stride {STEP}": valid[::STEP, ::STEP],
        f"max-pooling, {STEP}×{STEP}": windows.max(axis=(2, 3)),
        f"average-pooling, {STEP}×{STEP}": windows.mean(axis=(2, 3)),
    }

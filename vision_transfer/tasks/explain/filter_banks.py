"""Classic filters, written down and not learnt: Sobel, Haar, Gabor; and what they answer to an image."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Real

# A Gabor kernel ends where its Gaussian is down to 1 % of its peak.
GABOR_DEVIATIONS = 3.0
# Weights of ITU-R BT.601, which Pillow uses too.
LUMA = (0.299, 0.587, 0.114)

# Waves per pixel, degrees and pixels; the narrowest under the longest wave still answers to plain brightness with only
# exp(-2π²f²σ²) = 6 % of its answer to stripes.
GABOR_FREQUENCIES = (0.15, 0.25)
GABOR_ANGLES = (0, 45, 90, 135)
GABOR_WIDTHS = (2.5, 4.0)
HAAR_SIZES = (2, 4, 8)


@dataclass(frozen=True)
class Kernel:
    """A filter with a name for people.

    Attributes:
        name: such as `gabor 0.1 / 45° / 2`.
        values: `(kernel_height, kernel_width) float32`; the answer at a pixel is the sum of the products with the
            pixels around it (correlation, as in a convolutional network: nothing is flipped).
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

    Args:
        sizes: widths of the square in pixels, even; values are ±1 / size², so that all sizes answer alike.
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

    Args:
        frequency: f, waves per pixel.
        angle: θ in degrees, from the axis to the right, downwards: 0 answers to vertical stripes.
        width: σ in pixels.
    """
    reach = math.ceil(GABOR_DEVIATIONS * width)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float64)
    turned = x * math.cos(math.radians(angle)) + y * math.sin(math.radians(angle))
    envelope = np.exp(-(x**2 + y**2) / (2 * width**2)) / (2 * math.pi * width**2)
    return (envelope * np.cos(2 * math.pi * frequency * turned)).astype(np.float32)


def gabor_kernels(
    frequencies: Sequence[float] = GABOR_FREQUENCIES,
    angles: Sequence[float] = GABOR_ANGLES,
    widths: Sequence[float] = GABOR_WIDTHS,
) -> list[Kernel]:
    """Gabor kernels of every frequency (waves per pixel), width (pixels) and angle (degrees), the angle fastest."""
    return [
        Kernel(f"gabor, {frequency:g} per px, σ {width:g} px, {angle:g}°", gabor_kernel(frequency, angle, width))
        for frequency in frequencies
        for width in widths
        for angle in angles
    ]


def filter_banks() -> dict[str, list[Kernel]]:
    """All banks, by name."""
    return {"sobel": sobel_kernels(), "haar": haar_kernels(), "gabor": gabor_kernels()}


def grey(image: Real[np.ndarray, "height width channels"]) -> Float32[np.ndarray, "height width"]:
    """Brightness 0–1 of an RGB or grey image of 0–255."""
    pixels = image.astype(np.float32) / 255
    return pixels[..., 0] if image.shape[-1] == 1 else pixels @ np.array(LUMA, np.float32)


def responses(
    brightness: Float[np.ndarray, "height width"], kernels: Sequence[Kernel]
) -> Float32[np.ndarray, "kernels height width"]:
    """What each kernel answers at each pixel; beyond its edges the image goes on mirrored."""
    from scipy.ndimage import correlate

    wide = brightness.astype(np.float64)
    # an even kernel's centre is right of and below its middle, in scipy as here
    return np.stack([correlate(wide, kernel.values.astype(np.float64), mode="reflect") for kernel in kernels]).astype(
        np.float32
    )

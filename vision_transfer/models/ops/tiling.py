"""The division of a convolution into tiles, and of tiles into chunks that stay in a CPU's cache, from shapes alone."""

from dataclasses import dataclass
from typing import Literal

from vision_transfer.models.ops.winograd_transforms import KERNEL_SIZE, POINTS

Padding = Literal["valid", "same"]
# Tiles that share one matrix product. With fewer the product is bound by reading kernels, more do not fit the cache:
# 130 to 290 are within 5 % of the best for 64 to 512 channels on a core with 1 MiB of L2 and 16 MiB of L3.
CHUNK_TILES = 200


@dataclass(frozen=True)
class Tiling:
    """The division of one convolution.

    Attributes:
        tile: outputs per tile and axis.
        padding: zeros before the first row and column of the input.
        height, width: of the output, before pooling.
        images: images in a chunk; more than one only where an image is one strip.
        strips, rows, columns: strips in an image, tile rows in a strip, tiles across.
    """

    tile: int
    padding: int
    height: int
    width: int
    images: int
    strips: int
    rows: int
    columns: int

    @property
    def grid(self) -> tuple[int, int, int]:
        """Images, tiles down and tiles across of a chunk."""
        return self.images, self.rows, self.columns

    @property
    def covered(self) -> tuple[int, int]:
        """Height and width that all tiles cover together."""
        return self.strips * self.rows * self.tile, self.columns * self.tile


def plan(
    image_shape: tuple[int, ...],
    padding: int,
    tile: int,
    *,
    pool: bool = False,
    chunk_tiles: int = CHUNK_TILES,
) -> Tiling:
    """The tiling for images (batch, height, width, channels) with at least one output per axis.

    A chunk is a number of images that divides the batch or, if one image has more than `chunk_tiles`, a strip of it.
    """
    batch, height, width = image_shape[:3]
    output_height, output_width = (extent + 2 * padding - KERNEL_SIZE + 1 for extent in (height, width))
    down, columns = (-(-extent // tile) for extent in (output_height, output_width))
    if down * columns <= chunk_tiles:
        most = chunk_tiles // (down * columns)
        images = max(count for count in range(1, min(batch, most) + 1) if batch % count == 0)
        rows, strips = down, 1
    else:
        # Strips of odd tiles that are pooled start at an even row.
        rows = _strip_rows(down, columns, 2 if pool and tile % 2 else 1, chunk_tiles)
        images, strips = 1, -(-down // rows)
    return Tiling(tile, padding, output_height, output_width, images, strips, rows, columns)


def gradient_chunk_tiles(inputs: int, outputs: int) -> int:
    """Tiles per chunk for the gradient of a kernel, which is summed over chunks.

    Each chunk reads and writes the whole sum, `inputs · outputs` numbers per product, but `inputs + outputs` per tile:
    as many tiles as make the sum the smaller part.
    """
    return max(CHUNK_TILES, 2 * inputs * outputs // (inputs + outputs))


def best_tile(image_shape: tuple[int, ...], padding: int) -> int:
    """The tile size with the fewest products for images (batch, height, width, channels)."""

    def products(tile: int) -> int:
        tiling = plan((1, *image_shape[1:3]), padding, tile)
        return -(-tiling.height // tile) * tiling.columns * (tile + KERNEL_SIZE - 1) ** 2

    return min(POINTS, key=products)


def _strip_rows(down: int, columns: int, multiple: int, chunk_tiles: int) -> int:
    """Rows of a strip: as few superfluous rows as possible, then the largest strips within the limit."""
    fitting = [rows for rows in range(multiple, down + 1, multiple) if rows * columns <= chunk_tiles] or [multiple]
    large = [rows for rows in fitting if 2 * rows > fitting[-1]]
    return min(large, key=lambda rows: (-(-down // rows) * rows, -rows))

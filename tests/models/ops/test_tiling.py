"""The cutting into tiles and chunks: everything is covered, and nothing needlessly."""

from hypothesis import given
from hypothesis import strategies as st

from vision_transfer.models.ops.tiling import CHUNK_TILES, best_tile, plan
from vision_transfer.models.ops.winograd_transforms import POINTS


@given(
    batch=st.integers(1, 64),
    height=st.integers(3, 260),
    width=st.integers(3, 260),
    padding=st.integers(0, 2),
    tile=st.sampled_from(sorted(POINTS)),
    pool=st.booleans(),
)
def test_chunks_cover_every_output(batch, height, width, padding, tile, pool):
    tiling = plan((batch, height, width, 16), padding, tile, pool=pool)
    covered_height, covered_width = tiling.covered
    assert batch % tiling.images == 0
    assert tiling.images == 1 or tiling.strips == 1
    assert covered_height >= tiling.height == height + 2 * padding - 2
    assert covered_width >= tiling.width == width + 2 * padding - 2
    assert covered_width - tiling.width < tile
    images, rows, columns = tiling.grid
    assert images * rows * columns <= max(CHUNK_TILES, 2 * columns)
    if pool and tiling.strips > 1:
        assert tiling.rows * tile % 2 == 0


def test_the_tile_with_the_fewest_products_is_taken():
    assert best_tile((1, 45, 45, 64), 1) == 5
    assert best_tile((1, 11, 11, 64), 1) == 4

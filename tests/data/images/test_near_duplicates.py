"""Near-duplicates: copies are found, other images are not, and the blocks compare every pair."""

import io
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vision_transfer.data.images import near_duplicates as module
from vision_transfer.data.images.decode import decode_file
from vision_transfer.data.images.near_duplicates import (
    LEAST_CORRELATION,
    MOST_BITS_APART,
    _similar_hashes,
    connected,
    gradient_correlation,
    near_duplicates,
    perceptual_hashes,
    thumbnail,
)


def halved(image):
    return np.asarray(Image.fromarray(image).resize((60, 45), Image.Resampling.BILINEAR))


def compressed(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=30)
    return np.asarray(Image.open(file))


def brightened(image):
    return np.minimum(image * 1.3, 255).astype(np.uint8)


def grey(image):
    return np.asarray(Image.fromarray(image).convert("L"))[:, :, None]


@pytest.mark.parametrize("altered", [np.copy, halved, compressed, brightened, grey])
def test_altered_copies_are_found_among_others(altered, scene):
    images = [scene(seed) for seed in range(40)]
    thumbnails = np.stack([thumbnail(image) for image in [*images, *map(altered, images[:20])]])
    found = near_duplicates(thumbnails)
    assert found.pairs.tolist() == [[place, 40 + place] for place in range(20)]
    assert found.pairs.dtype == np.int32
    assert (found.similarity >= LEAST_CORRELATION).all()


def test_every_pair_is_compared(monkeypatch, scene):
    monkeypatch.setattr(module, "_ROWS", 3)
    monkeypatch.setattr(module, "_CANDIDATES", 2)
    thumbnails = np.stack([thumbnail(scene(seed % 7)) for seed in range(23)])
    usable = np.arange(23) % 5 > 0
    hashes = perceptual_hashes(thumbnails)
    expected = [
        [first, second]
        for first, second in combinations(range(23), 2)
        if usable[first]
        and usable[second]
        and int(hashes[first] ^ hashes[second]).bit_count() <= MOST_BITS_APART
        and gradient_correlation(thumbnails[[first]], thumbnails[[second]])[0] >= LEAST_CORRELATION
    ]
    assert sorted(near_duplicates(thumbnails, usable).pairs.tolist()) == expected
    assert len(expected) > 10


def test_hashes_are_signs_of_low_frequencies(scene):
    """Against the definition of the cosine transform, in float64."""
    places, frequencies = np.arange(32), np.arange(8)
    basis = np.cos(np.pi * (2 * places + 1) * frequencies[:, None] / 64)
    basis[0] *= np.sqrt(0.5)
    pixels = thumbnail(scene(3))
    low = (basis @ pixels.astype(np.float64) @ basis.T).reshape(-1)
    expected = low > np.median(low[1:])
    expected[0] = False
    bits = np.unpackbits(perceptual_hashes(pixels[None]).view(np.uint8))
    np.testing.assert_array_equal(bits, expected)


def test_correlation_is_that_of_the_differences(scene):
    one, other = thumbnail(scene(1)).astype(np.float64), thumbnail(scene(2)).astype(np.float64)
    products = norms_one = norms_other = 0.0
    for axis in (0, 1):
        a, b = np.diff(one, axis=axis), np.diff(other, axis=axis)
        products, norms_one, norms_other = (
            products + (a * b).sum(),
            norms_one + (a**2).sum(),
            norms_other + (b**2).sum(),
        )
    found = gradient_correlation(*(image.astype(np.uint8)[None] for image in (one, other)))
    np.testing.assert_allclose(found, products / np.sqrt(norms_one * norms_other), rtol=1e-5)


def test_images_of_one_colour_are_like_nothing():
    thumbnails = np.stack([thumbnail(np.full((20, 20, 3), level, np.uint8)) for level in (0, 0, 128)])
    assert len(near_duplicates(thumbnails).pairs) == 0


@pytest.mark.parametrize("few", [10_000, 0], ids=["all with all", "by bands"])
def test_pairs_of_hashes_are_those_of_a_comparison_of_all_with_all(monkeypatch, few):
    monkeypatch.setattr(module, "_FEW", few)
    random = np.random.default_rng(0)
    count = 5000 if few else 2000
    hashes = random.integers(0, 2**63, count, dtype=np.uint64)
    for place in range(0, count, 25):  # near ones in other blocks of rows and of columns, with bits in any bands
        bits = random.choice(64, random.integers(0, MOST_BITS_APART + 3), replace=False)
        hashes[(place * 7 + 1200) % count] = hashes[place] ^ np.bitwise_or.reduce(
            np.uint64(1) << bits.astype(np.uint64)
        )
    hashes[1000:1100] = hashes[999]
    found = np.concatenate(list(_similar_hashes(hashes)))
    found = found[np.lexsort((found[:, 1], found[:, 0]))]
    apart = np.array([np.bitwise_count(hashes ^ one) for one in hashes])
    expected = np.argwhere(np.triu(apart <= MOST_BITS_APART, 1))
    assert len(expected) > 100 * 99 / 2 + 50
    np.testing.assert_array_equal(found, expected)


def test_none_and_one(scene):
    assert len(near_duplicates(np.zeros((0, 32, 32), np.uint8)).pairs) == 0
    assert len(near_duplicates(thumbnail(scene(0))[None]).pairs) == 0


@given(
    st.integers(1, 30).flatmap(
        lambda count: st.tuples(st.just(count), st.lists(st.tuples(*[st.integers(0, count - 1)] * 2)))
    )
)
def test_groups_are_what_pairs_connect(case):
    count, pairs = case
    groups = list(range(count))
    for first, second in pairs:
        groups = [groups[first] if group == groups[second] else group for group in groups]
    found = connected(count, np.array(pairs, np.int32).reshape(-1, 2))
    assert len(found) == count
    for first, second in combinations(range(count), 2):
        assert (found[first] == found[second]) == (groups[first] == groups[second])


def test_the_classic_pairs(data_folder):
    """The pairs that are known of cats_vs_dogs_small, among a tenth of its images."""
    root = data_folder / "cats_vs_dogs_small"
    if not root.is_dir():
        pytest.skip("VISION_TRANSFER_DATA has no cats_vs_dogs_small")
    known = {"train/dog/dog.74.jpg", "train/dog/dog.180.jpg", "train/dog/dog.980.jpg", "validation/dog/dog.1273.jpg"}
    others = sorted(str(path.relative_to(root)) for path in root.rglob("*.?5.jpg"))[:200]
    files = sorted({*others, *known})
    found = near_duplicates(np.stack([thumbnail(decode_file(root / file, 1)) for file in files]))
    assert {tuple(sorted(files[place] for place in pair)) for pair in found.pairs} == {
        ("train/dog/dog.180.jpg", "train/dog/dog.74.jpg"),
        ("train/dog/dog.980.jpg", "validation/dog/dog.1273.jpg"),
    }


def test_blank_images_are_compared_with_nothing(monkeypatch, scene):
    """Their hashes are equal, so that all would be candidates of all."""
    compared = []
    monkeypatch.setattr(
        module, "gradient_correlation", lambda one, other: compared.append(len(one)) or np.ones(len(one))
    )
    blank = np.repeat(np.arange(250, dtype=np.uint8), 4)[:, None, None] * np.ones((1, 32, 32), np.uint8)
    pair = np.stack([thumbnail(scene(0))] * 2)
    found = near_duplicates(np.concatenate([blank, pair]))
    assert found.pairs.tolist() == [[1000, 1001]] and sum(compared) == 1

"""IDX files: read as they were written, and every damage a clear error."""

import gzip
import shutil
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vision_transfer.data.formats import idx
from vision_transfer.data.formats.idx import idx_source, read_idx
from vision_transfer.data.source import fingerprint
from vision_transfer.errors import UserError


def encoded(array):
    return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


IMAGES = np.random.default_rng(0).integers(0, 255, (6, 5, 4), dtype=np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2], np.uint8)


@pytest.fixture
def folder(tmp_path):
    for prefix, count in (("train", 6), ("t10k", 3)):
        (tmp_path / f"{prefix}-images-idx3-ubyte").write_bytes(encoded(IMAGES[:count]))
        (tmp_path / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(encoded(LABELS[:count])))
    return tmp_path


def test_what_is_read_is_what_was_written(folder):
    source = idx_source(folder, "tiny")
    assert source.classes == ("0", "1", "2")
    assert source.default_size == 5
    train, test = source.splits["train"], source.splits["test"]
    assert train.files[4] == "train/4"
    assert train.labels.tolist() == LABELS.tolist()
    assert train.labels.dtype == np.int32
    assert len(test.files) == 3
    np.testing.assert_array_equal(train.pixels(4, 1)[..., 0], IMAGES[4])
    np.testing.assert_array_equal(train.pixels(4, 3), np.repeat(IMAGES[4][..., None], 3, 2))


def test_the_wrapper_does_not_change_the_fingerprint(folder):
    before = fingerprint(idx_source(folder, "tiny"))
    plain = folder / "train-images-idx3-ubyte"
    plain.with_suffix(".gz").write_bytes(gzip.compress(plain.read_bytes(), 1))
    plain.unlink()
    assert fingerprint(idx_source(folder, "tiny")) == before
    plain.write_bytes(encoded(IMAGES ^ 1))
    assert fingerprint(idx_source(folder, "tiny")) != before


def test_names_with_a_dot(folder):
    (folder / "train-images-idx3-ubyte").rename(folder / "train-images.idx3-ubyte")
    assert len(idx_source(folder, "tiny").splits["train"].files) == 6


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train-images-idx3-ubyte", b"", "begins with nothing"),
        ("train-images-idx3-ubyte", b"\x89PNG\r\n", "begins with 89504e47"),
        ("train-images-idx3-ubyte", encoded(LABELS), "3-dimensional unsigned bytes begins with 00000803"),
        ("train-images-idx3-ubyte", encoded(IMAGES)[:10], "ends within its header"),
        ("train-images-idx3-ubyte", encoded(IMAGES)[:-1], "truncated"),
        ("train-images-idx3-ubyte", encoded(IMAGES) + b"\0", "too long"),
        ("train-images-idx3-ubyte", struct.pack(">4B3I", 0, 0, 8, 3, 2**32 - 1, 2**20, 2**20), "the limit is"),
        ("train-images-idx3-ubyte", struct.pack(">4B3I", 0, 0, 8, 3, 2**20, 2**5, 2**5), "truncated"),
        ("train-images-idx3-ubyte", gzip.compress(encoded(IMAGES))[:-9], "damaged or truncated gzip"),
        ("train-images-idx3-ubyte", gzip.compress(encoded(IMAGES))[:-1] + b"x", "damaged or truncated gzip"),
        ("train-images-idx3-ubyte", gzip.compress(encoded(IMAGES)[:-1]), "truncated"),
        ("train-images-idx3-ubyte", b"\x1f\x8b\x08garbage and more", "damaged or truncated gzip"),
        ("train-images-idx3-ubyte", encoded(IMAGES[:4]), "train has 4 images, but 6 labels"),
        ("t10k-images-idx3-ubyte", encoded(np.zeros((3, 4, 5), np.uint8)), "differ in shape"),
        ("t10k-images-idx3-ubyte", encoded(np.zeros((3, 0, 5), np.uint8)), "shape"),
        ("train-images-idx3-ubyte", encoded(np.zeros((0, 5, 4), np.uint8)), "train has 0 images"),
    ],
)
def test_damage_is_an_error(folder, name, content, message):
    (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as raised:
        idx_source(folder, "tiny")
    assert str(folder) in str(raised.value)


def test_labels_out_of_range(folder):
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(encoded(np.array([0, 9, 1], np.uint8))))
    with pytest.raises(UserError, match="label 9 is out of range; labels go from 0 to 2"):
        idx_source(folder, "tiny", classes=("a", "b", "c"))


def test_a_missing_file(folder):
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(UserError, match="has no file t10k-labels-idx1-ubyte"):
        idx_source(folder, "tiny")


def test_a_gzip_bomb_is_read_no_further_than_declared(tmp_path, monkeypatch):
    monkeypatch.setattr(idx, "MAX_ARRAY_BYTES", 10**6)
    bomb = tmp_path / "bomb.gz"
    with gzip.open(bomb, "wb") as file:
        file.write(encoded(LABELS))
        for _ in range(200):
            file.write(bytes(10**6))
    with pytest.raises(UserError, match="too long"):
        read_idx(bomb, 1)


@given(st.binary(max_size=40), st.integers(1, 3), st.booleans())
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_an_array_or_an_error(tmp_path_factory, content, dimensions, zipped):
    path = tmp_path_factory.getbasetemp() / "any.idx"
    content = bytes((0, 0, 8, dimensions)) + content
    path.write_bytes(gzip.compress(content) if zipped else content)
    try:
        array = read_idx(path, dimensions)
    except UserError as error:
        assert str(path) in str(error)
    else:
        assert encoded(array) == content


def test_a_folder_in_place_of_a_file(folder):
    (folder / "train-images-idx3-ubyte").unlink()
    (folder / "train-images-idx3-ubyte").mkdir()
    with pytest.raises(UserError, match="has no file train-images"):
        idx_source(folder, "tiny")
    shutil.rmtree(folder / "train-images-idx3-ubyte")

"""Images decoded when they are taken are those of the decoded cache, in bounded memory and few passes."""

import gc
import threading
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vision_transfer.data.dataset import SPLITS, digest_image, stack_digests
from vision_transfer.data.formats.arrays import array_examples
from vision_transfer.data.images import cache as cache_module
from vision_transfer.data.images import stream
from vision_transfer.data.images.decode import UndecodableError
from vision_transfer.data.images.resize import Form
from vision_transfer.data.images.stream import DecodedRows
from vision_transfer.data.rows import TakenRows, will_need
from vision_transfer.data.source import Examples
from vision_transfer.errors import UserError

COUNT, SIDE = 30, 6


def rows_of(pixels_of, values):
    """Rows whose digests are those of `values`, and whose pixels are what `pixels_of` gives."""
    examples = Examples(tuple(map(str, range(len(values)))), np.zeros(len(values), np.int32), pixels_of)
    form = Form(values.shape[1], values.shape[3], "bilinear")
    return DecodedRows(examples, form, stack_digests([digest_image(value) for value in values]))


@pytest.fixture(scope="module")
def streamed():
    values = np.random.default_rng(0).integers(0, 256, (COUNT, SIDE, SIDE, 1), dtype=np.uint8)
    return rows_of(array_examples("array", values, np.zeros(COUNT)).pixels, values), values


def assert_same(found, expected):
    for name in SPLITS:
        one, other = getattr(found, name), getattr(expected, name)
        assert one.files == other.files
        for field in ("images", "labels", "digests", "example_ids"):
            np.testing.assert_array_equal(getattr(one, field), getattr(other, field))
    for field in ("fingerprint", "classes", "skipped", "note", "warnings"):
        assert getattr(found, field) == getattr(expected, field)


@given(st.lists(st.integers(-COUNT, COUNT - 1)), st.lists(st.integers(0, COUNT - 1)))
def test_rows_by_numbers_whatever_was_asked_for_ahead(streamed, numbers, ahead):
    rows, values = streamed
    chosen = np.array(numbers, int)
    rows.will_need(np.array(ahead, int))
    np.testing.assert_array_equal(rows[chosen], values[chosen])
    taken = TakenRows(rows, chosen)
    will_need(taken, np.arange(len(numbers)))
    np.testing.assert_array_equal(taken, values[chosen])


@pytest.mark.parametrize("choice", [slice(None), slice(30, 2, -7), 5, -1, [[1, 2], [7, 0]], []])
def test_rows_as_numpy_chooses_them(streamed, choice):
    rows, values = streamed
    np.testing.assert_array_equal(rows[choice], values[np.array(choice, int) if choice == [] else choice])
    with pytest.raises(IndexError):
        rows[[COUNT]]


@pytest.mark.parametrize(
    "request_",
    [
        {"train_examples": 8},
        {"channels": 1, "resampling": "nearest"},
        {"folds": 3, "fold": 1},
        {"folds": 3},
        {"validation_fraction": 0.0},
    ],
    ids=str,
)
def test_a_folder_streamed_is_the_folder_cached(load, unsplit, tmp_path, request_):
    (unsplit / "cat" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    (unsplit / "bird" / "9.png").write_bytes((unsplit / "bird" / "0.png").read_bytes())
    stream_first = load(root=unsplit, image_size=12, decode="stream", **request_)
    assert not list((tmp_path / "cache").rglob("images.npy"))
    assert [item.file for item in stream_first.skipped] == ["cat/broken.png"]
    assert_same(stream_first, load(root=unsplit, image_size=12, decode="cache", **request_))


def test_a_second_time_only_rows_that_are_taken_are_decoded(load, image_folder, monkeypatch):
    request = {"root": image_folder, "image_size": 12, "decode": "stream"}
    first = load(**request)
    decoded = []
    monkeypatch.setattr(cache_module, "_decode", None)
    monkeypatch.setattr(stream, "resize", lambda image, *_: decoded.append(image.shape) or image[:12, :12])
    second = load(**request)
    assert not decoded
    assert second.fingerprint == first.fingerprint
    with pytest.raises(UserError, match=r"decode=stream: train/cat/cat\.1\.png has changed .* other pixels"):
        second.train.images[1]
    assert len(decoded) == 1


def test_flat_images_are_found_in_the_same_pass(load, image_folder, write_image):
    from PIL import Image

    Image.new("RGB", (20, 16), (9, 9, 9)).save(image_folder / "train/cat/cat.0.png")
    found = [load(root=image_folder, image_size=12, decode=decode).warnings for decode in ("stream", "cache")]
    assert found[0] == found[1]
    assert "train/cat/cat.0.png" in found[0][0]


@pytest.mark.parametrize(
    "problem", [UndecodableError("no image"), UserError("--config.dataset.root: 3 was changed")], ids=["bytes", "file"]
)
def test_an_image_that_changed_is_named(problem):
    values = np.zeros((COUNT, SIDE, SIDE, 1), np.uint8)

    def pixels(index, channels):
        if index == 3:
            raise problem
        return values[index]

    rows = rows_of(pixels, values)
    rows.will_need(np.arange(5))
    rows[[0, 1, 2, 4]]
    with pytest.raises(UserError, match=r"\b3 (has|was) changed"):
        rows[[3]]


def test_memory_is_bounded_whatever_is_asked_for(monkeypatch):
    side, most = 64, 10
    values = np.random.default_rng(0).integers(0, 256, (200, side, side, 3), dtype=np.uint8)
    monkeypatch.setattr(stream, "AHEAD_BYTES", most * values[0].nbytes)
    rows = rows_of(lambda index, _: values[index].copy(), values)
    tracemalloc.start()
    try:
        for first in range(0, 200, 50):
            rows.will_need(np.arange(first, 200))
            time.sleep(0.05)
        assert len(rows._ahead) == most
        assert tracemalloc.get_traced_memory()[1] < 2.5 * most * values[0].nbytes
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(rows, values)


def test_rows_that_nobody_will_take_are_given_up():
    values, decoded, go = np.zeros((COUNT, SIDE, SIDE, 1), np.uint8), [], threading.Event()
    rows = rows_of(lambda index, _: (go.wait() and decoded.append(index)) or values[index], values)
    rows.will_need(np.arange(COUNT))
    pool = rows._pool
    del rows
    gc.collect()
    go.set()
    pool.shutdown()
    assert len(decoded) <= stream.cores()


def test_what_does_not_fit_the_disk_is_refused_before_it_is_decoded(load, image_folder, monkeypatch):
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(cache_module.shutil, "disk_usage", lambda _: usage(10_000, 9_000, 1_000))
    with pytest.raises(UserError, match=r"14 decoded images of 12x12 need 6\.0 kB, and 1\.0 kB .*decode=stream"):
        load(root=image_folder, image_size=12)
    assert len(load(root=image_folder, image_size=12, decode="stream").train) == 6

"""NumPy archives: read as they were written, nothing unpickled, and every damage a clear error."""

import io
import os
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vision_transfer.data.formats.npz import npz_source
from vision_transfer.errors import UserError

RNG = np.random.default_rng(0)
ARRAYS = {
    "x_train": RNG.integers(0, 255, (6, 5, 4, 3), dtype=np.uint8),
    "y_train": np.array([[0], [1], [2], [0], [1], [2]], np.int64),
    "x_test": RNG.integers(0, 255, (3, 5, 4, 3), dtype=np.uint8),
    "y_test": np.array([0, 1, 2], np.uint8),
}


@pytest.fixture
def save(tmp_path):
    def save(**changes):
        path = tmp_path / "tiny.npz"
        arrays = {name: array for name, array in (ARRAYS | changes).items() if array is not None}
        np.savez_compressed(path, **arrays)
        return path

    return save


def test_what_is_read_is_what_was_written(save):
    source = npz_source(save())
    assert source.name == "tiny"
    assert source.classes == ("0", "1", "2")
    train = source.splits["train"]
    assert train.labels.tolist() == [0, 1, 2, 0, 1, 2]
    np.testing.assert_array_equal(train.pixels(3, 3), ARRAYS["x_train"][3])
    grey = np.asarray(Image.fromarray(ARRAYS["x_train"][3]).convert("L"))
    np.testing.assert_array_equal(train.pixels(3, 1)[..., 0], grey)
    assert set(source.splits) == {"train", "test"}


def test_a_folder_with_one_file_will_do(save):
    assert npz_source(save().parent).name == "tiny"


def test_grey_images_fortran_order_and_validation(save):
    x = np.asfortranarray(ARRAYS["x_train"][..., 0])
    path = save(
        x_train=x, x_test=x[:3], x_validation=x[:2], y_validation=np.array([0, 1]), unrelated=np.array(["text"])
    )
    source = npz_source(path)
    assert set(source.splits) == {"train", "validation", "test"}
    np.testing.assert_array_equal(source.splits["train"].pixels(5, 1)[..., 0], x[5])


class Dangerous:
    def __reduce__(self):
        return os.system, ("touch /tmp/this-must-not-exist-vision-transfer",)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_train": np.array([Dangerous()] * 6, object)}, "Python objects, which are never loaded"),
        ({"x_train": None}, r"has no x_train; it contains x_test, y_test, y_train"),
        ({"x_test": None, "y_test": None}, "has no x_test and no y_test"),
        ({"x_train": ARRAYS["x_train"] / 255}, "x_train is float64; pixels must be uint8"),
        ({"x_train": ARRAYS["x_train"][..., :2]}, r"x_train has shape \(6, 5, 4, 2\)"),
        ({"x_train": ARRAYS["x_train"].reshape(6, -1)}, r"x_train has shape \(6, 60\)"),
        ({"x_train": ARRAYS["x_train"][:5]}, "train has 5 images, but 6 labels"),
        ({"x_train": ARRAYS["x_train"][:, :4]}, "differ in shape"),
        ({"y_train": np.zeros((6, 3), int)}, r"y_train has shape \(6, 3\)"),
        ({"y_train": np.zeros(6)}, "y_train is float64; labels must be integers"),
        ({"y_train": np.array([0, 1, 2, -1, 0, 1])}, "label -1 is out of range"),
        (
            {"y_train": np.array([0, 1, 2, 10**12, 0, 1])},
            "label 1000000000000 is out of range; labels go from 0 to 999",
        ),
        ({"y_train": np.zeros(6, int), "y_test": np.zeros(3, int)}, "all labels are 0"),
        ({"x_test": ARRAYS["x_test"][:0], "y_test": ARRAYS["y_test"][:0]}, "x_test has shape"),
    ],
)
def test_what_is_refused(save, changes, message):
    path = save(**changes)
    with pytest.raises(UserError, match=message) as raised:
        npz_source(path)
    assert str(path) in str(raised.value)
    assert not os.path.exists("/tmp/this-must-not-exist-vision-transfer")  # noqa: PTH110


def test_a_label_beyond_the_known_classes(save):
    with pytest.raises(UserError, match="label 2 is out of range; labels go from 0 to 1"):
        npz_source(save(), classes=("a", "b"))


def test_several_files_or_none(save, tmp_path):
    path = save()
    path.with_name("other.npz").write_bytes(path.read_bytes())
    with pytest.raises(UserError, match=r"found: other.npz, tiny.npz"):
        npz_source(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="found: none"):
        npz_source(tmp_path / "empty")


def with_header(shape, content=b"", kind="|u1"):
    """An archive whose x_train declares whatever it likes."""
    array = io.BytesIO()
    np.lib.format.write_array_header_2_0(array, {"descr": kind, "fortran_order": False, "shape": shape})
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x_train.npy", array.getvalue() + content)
        archive.writestr("y_train.npy", b"never reached")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an .npz"),
        (b"PK\3\4 and nothing", "not an .npz"),
        (with_header((10**6, 1000, 1000, 3)), "declares shape"),
        (with_header((2, 2, 2, 3), bytes(23)), "declares shape"),
        (with_header((2, 2, 2, 3), bytes(25)), "declares shape"),
        (with_header((-1, 2, 2, 3), bytes(24)), "declares shape|readable"),
        (with_header((0, 10**9, 10**9, 3)), "readable"),
        (with_header((10,), bytes(0), kind="|S0"), "array of numbers"),
        (with_header((10,), bytes(40), kind="<U1"), "array of numbers"),
        (with_header((2,), bytes(12), kind=[("a", "<i2"), ("b", "<i4")]), "array of numbers"),
        (with_header((2, 2, 2, 3), bytes(24), kind="|O"), "Python objects"),
    ],
)
def test_lying_headers(tmp_path, content, message):
    path = tmp_path / "lies.npz"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        npz_source(path)


@pytest.fixture(scope="module")
def whole():
    stream = io.BytesIO()
    np.savez(stream, **ARRAYS)
    return stream.getvalue()


@given(st.data())
@settings(max_examples=400, deadline=None)
def test_truncated_and_mutated_archives_are_the_same_arrays_or_an_error(tmp_path_factory, whole, data):
    content = bytearray(whole)
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "mutated.npz"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)) | st.just(len(content)))])
    try:
        source = npz_source(path)
    except UserError as error:
        assert str(path) in str(error)
    else:
        # Zip's sums of each member leave nothing to change but what nobody reads.
        np.testing.assert_array_equal(source.splits["train"].pixels(3, 3), ARRAYS["x_train"][3])

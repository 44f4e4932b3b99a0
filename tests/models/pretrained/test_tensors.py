"""The digest over tensors, and the messages about files that lack wanted tensors."""

import hashlib
import struct

import numpy as np
import pytest

from vision_transfer.errors import UserError
from vision_transfer.models.pretrained.tensors import (
    Layout,
    StoredTensor,
    Wanted,
    printable,
    read_wanted,
    tensors_sha256,
)


def stored(name, values, dtype="float32", shape=None, unreadable=""):
    values = np.asarray(values, np.float32)
    shape = values.shape if shape is None else shape
    return StoredTensor(name, tuple(name.split("/")), shape, dtype, lambda: values, unreadable)


def wanted(name, shape, *candidates):
    layer, parameter = name.split("/")
    return Wanted(layer, parameter, shape, candidates, (Layout(shape),))


def test_digest_is_over_the_bytes_of_each_kernel_and_then_its_bias_in_the_order_given():
    params = {
        "b": {"bias": np.array([5.0], np.float32), "kernel": np.array([[1.0, 2.0]], np.float32)},
        "a": {"kernel": np.array([3.0], np.float32), "bias": np.array([4.0], np.float32)},
    }
    assert tensors_sha256(params) == hashlib.sha256(struct.pack("<5f", 1.0, 2.0, 5.0, 3.0, 4.0)).hexdigest()


def test_digest_does_not_depend_on_how_an_array_lies_in_memory():
    kernel = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    assert tensors_sha256({"a": {"kernel": kernel}}) == tensors_sha256({"a": {"kernel": np.asfortranarray(kernel)}})
    assert tensors_sha256({"a": {"kernel": kernel}}) == tensors_sha256({"a": {"kernel": kernel.astype(">f4")}})


def test_tensors_that_fit_are_read(tmp_path):
    tensor = stored("a/kernel", [[1.0, 2.0]])
    params = read_wanted(tmp_path, [wanted("a/kernel", (1, 2), tensor)], [tensor])
    np.testing.assert_array_equal(params["a"]["kernel"], [[1.0, 2.0]])


def test_all_that_does_not_fit_is_shown_with_both_sides(tmp_path):
    wrong_shape = stored("a/kernel", [[1.0]])
    wrong_type = stored("a/bias", [1.0], dtype="float64")
    not_finite = stored("b/kernel", [np.nan, 1.0, -np.inf])
    packed = stored("b/bias", [1.0], unreadable="stored in pieces or compressed")
    good = stored("good/bias", [1.0])
    other = stored("top/kernel", [7.0])
    with pytest.raises(UserError) as error:
        read_wanted(
            tmp_path / "weights.h5",
            [
                wanted("a/kernel", (2, 2), wrong_shape),
                wanted("a/bias", (1,), wrong_type),
                wanted("b/kernel", (3,), not_finite),
                wanted("b/bias", (1,), packed),
                wanted("good/bias", (1,), good),
                wanted("missing/bias", (9,)),
            ],
            [wrong_shape, wrong_type, not_finite, packed, good, other],
        )
    lines = str(error.value).splitlines()
    assert "weights.h5" in lines[0]
    assert "5 of the 6 tensors" in lines[0]
    assert lines[1:6] == [
        "  a/kernel: wanted (2, 2) float32; the file has a/kernel (1, 1) float32",
        "  a/bias: wanted (1,) float32; the file has a/bias (1,) float64",
        "  b/kernel: wanted finite numbers; b/kernel has 2 NaN or infinite of 3",
        "  b/bias: wanted (1,) float32; the file has b/bias (1,) float32, stored in pieces or compressed",
        "  missing/bias: wanted (9,) float32; the file has none",
    ]
    assert lines[6:8] == ["other tensors in the file:", "  top/kernel (1,) float32"]


def test_nothing_is_read_before_its_shape_is_known_to_fit(tmp_path):
    def read():
        raise AssertionError("read")

    huge = StoredTensor("a/kernel", ("a", "kernel"), (10**6, 10**6), "float32", read)
    with pytest.raises(UserError, match=r"\(1000000, 1000000\)"):
        read_wanted(tmp_path, [wanted("a/kernel", (2, 2), huge)], [huge])


def test_two_tensors_that_both_fit_are_an_error(tmp_path):
    first, second = stored("one/a/kernel", [1.0]), stored("two/a/kernel", [1.0])
    with pytest.raises(UserError, match=r"has one/a/kernel .* and two/a/kernel"):
        read_wanted(tmp_path, [wanted("a/kernel", (1,), first, second)], [first, second])


def test_of_two_tensors_the_one_that_fits_is_taken(tmp_path):
    first, second = stored("one/a/kernel", [1.0, 2.0]), stored("two/a/kernel", [3.0])
    params = read_wanted(tmp_path, [wanted("a/kernel", (1,), first, second)], [first, second])
    np.testing.assert_array_equal(params["a"]["kernel"], [3.0])


def test_a_message_stays_short_however_much_a_file_holds(tmp_path):
    others = [stored(f"{'x' * 500}{index}", [1.0]) for index in range(1000)]
    with pytest.raises(UserError) as error:
        read_wanted(tmp_path, [wanted(f"layer{i}/bias", (1,)) for i in range(1000)], others)
    assert len(str(error.value)) < 10_000
    assert "… and 980 more" in str(error.value)


def test_texts_out_of_a_file_cannot_steer_a_terminal():
    assert printable("bias\x1b[2J") == r"'bias\x1b[2J'"
    assert printable("\udcff") == r"'\udcff'"
    assert len(printable("x" * 10_000)) < 200

"""The table of predictions: wherever writing is cut off, resuming produces the same bytes."""

import csv
import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vision_transfer.errors import UserError
from vision_transfer.predict.csv_table import Table, append, resume
from vision_transfer.predict.predictor import Prediction

BATCH = 3
FILES = ["a.jpg", 'with "quotes", and commas.jpg', "two\nlines.jpg", "é.png", os.fsdecode(b"\xff.jpg"), "f", "g", "h"]


def predictions(files):
    """Batches of made-up predictions; `f` is no image."""
    every = []
    for file in files:
        share = (FILES.index(file) + 1) / 11
        if file == "f":
            every.append(Prediction(file, error="empty file"))
        else:
            every.append(
                Prediction(file, "dog" if share > 0.5 else "cat", max(share, 1 - share), np.array([1 - share, share]))
            )
    return [every[start : start + BATCH] for start in range(0, len(every), BATCH)]


def table(folder, digest="abc"):
    return Table(folder / "out.csv", ("cat", "dog"), digest, BATCH)


def write(table, files=FILES):
    content = resume(table, files)
    done = content.rows
    append(table, predictions(files[done:]), content)
    return done, content


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    target = table(tmp_path_factory.mktemp("uninterrupted"))
    write(target)
    return target.out.read_bytes()


@pytest.fixture(scope="module")
def digests(tmp_path_factory, uninterrupted):
    """What lies beside a table that is killed after its last batch."""
    target = table(tmp_path_factory.mktemp("killed"))

    def killed():
        yield from predictions(FILES)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        append(target, killed(), resume(target, FILES))
    assert target.unfinished.read_bytes() == uninterrupted
    return target.digests.read_bytes()


def test_the_table_is_csv_with_a_row_for_each_file(uninterrupted):
    rows = list(csv.DictReader(uninterrupted.decode().splitlines()))
    assert list(rows[0]) == ["file", "class", "probability", "error", "probability_cat", "probability_dog"]
    assert [row["file"] for row in rows][1:5] == [FILES[1], "two\\nlines.jpg", "é.png", "\\xff.jpg"]
    assert rows[5] == {"file": "f", "class": "", "probability": "", "error": "empty file"} | {
        f"probability_{name}": "" for name in ("cat", "dog")
    }
    assert float(rows[0]["probability"]) == pytest.approx(10 / 11, abs=1e-9)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_cut_off_anywhere_it_resumes_and_produces_the_same_bytes(data, tmp_path, uninterrupted, digests):
    target = table(tmp_path)
    target.unfinished.write_bytes(uninterrupted[: data.draw(st.integers(0, len(uninterrupted)))])
    target.digests.write_bytes(digests[: data.draw(st.integers(0, len(digests)))])
    done, content = write(target)
    assert target.out.read_bytes() == uninterrupted
    assert done % BATCH == 0 or done == len(FILES)
    assert (content.rows, content.counts) == (8, {"cat": 5, "dog": 2, "": 1})
    assert content.errors == [("f", "empty file")]
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]


def test_a_damaged_row_and_all_after_it_are_computed_again(tmp_path, uninterrupted, digests):
    target = table(tmp_path)
    lines = uninterrupted.splitlines(keepends=True)
    target.unfinished.write_bytes(b"".join([*lines[:5], b"\0" * len(lines[5]), *lines[6:]]))
    target.digests.write_bytes(digests)
    assert write(target)[0] == BATCH
    assert target.out.read_bytes() == uninterrupted


@pytest.mark.parametrize("seed", range(30))
def test_a_changed_byte_never_reaches_the_table(tmp_path, uninterrupted, digests, seed):
    """A digit of a probability was taken as it was."""
    random, target = np.random.default_rng(seed), table(tmp_path)
    target.unfinished.write_bytes(uninterrupted)
    target.digests.write_bytes(digests)
    file = target.digests if seed % 3 == 0 else target.unfinished
    content = bytearray(file.read_bytes())
    content[random.integers(len(content))] ^= 1 << random.integers(8)
    file.write_bytes(content)
    write(target)
    assert target.out.read_bytes() == uninterrupted


def test_a_table_of_other_files_or_numbers_is_not_continued(tmp_path, uninterrupted, digests):
    target = table(tmp_path)
    target.unfinished.write_bytes(uninterrupted)
    target.digests.write_bytes(digests)
    assert resume(target, ["new.jpg", *FILES]).rows == 0
    target.unfinished.write_bytes(uninterrupted)
    target.digests.write_bytes(digests)
    other = table(tmp_path, "def")
    assert resume(other, FILES).rows == 0
    assert {path.name for path in tmp_path.iterdir()} == {other.unfinished.name, other.digests.name}


def test_a_folder_is_refused(tmp_path):
    (tmp_path / "out.csv").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        resume(table(tmp_path), FILES)

"""Runs side by side, and the mode that writes pages."""

import json
from pathlib import Path

import numpy as np
import pytest

from vision_transfer.errors import UserError
from vision_transfer.metrics.significance import paired
from vision_transfer.tasks.report.comparison import paired_sentence
from vision_transfer.tasks.report.task import report, report_of_finished_run

FILES = tuple(f"digits/{number}" for number in range(40))


@pytest.fixture
def two(make_run):
    """The second run is correct where the first is, and on ten more images."""
    first = make_run("first", files=FILES)
    with np.load(first.predictions_file) as arrays:
        labels = arrays["labels"]
    better = np.eye(10, dtype=np.float32)[labels] * 5
    worse = better.copy()
    worse[:10] = np.roll(worse[:10], 1, axis=1)
    first.write_predictions(worse, labels, FILES)
    second = make_run("second", files=FILES, seed=1)
    # in another order: images are matched by name, not by row
    second.write_predictions(better[::-1], labels[::-1], FILES[::-1])
    return first.path, second.path


def test_it_counts_the_images_on_which_they_differ(two, tmp_path, caches, screen):
    file = report(two, tmp_path / "c.html", caches, screen)
    text = " ".join(file.read_text().split())
    assert "A: first against B: second, on 40 images: only the first is correct on 0, only the second on 10;" in text
    assert f"p = {2 / 2**10:.2g}" in text and "the second is significantly better" in text
    assert text.count(" – wrong") == 10
    assert "<code>seed</code>" in text and "<code>batch_size</code>" not in text


def test_runs_of_other_classes_are_not_compared_image_by_image(two, make_run, tmp_path, caches, screen):
    other = make_run("other", classes=["cat", "dog"], files=FILES).path
    text = report([two[0], other], tmp_path / "c.html", caches, screen).read_text()
    assert "no test images in common" in text and "There are none among the images that all of them predicted" in text


def test_unfinished_runs_are_compared_as_far_as_possible(two, tmp_path, caches, screen):
    for name in ("result.json", "predictions.npz"):
        (two[1] / name).unlink()
    text = report(two, tmp_path / "c.html", caches, screen).read_text()
    assert "B: second: result.json is missing" in text and "Validation loss" in text


def test_sentences():
    right, wrong = np.ones(9, bool), np.zeros(9, bool)
    assert "correct on the same images" in paired_sentence(paired(right, right))
    assert "the first is significantly better" in paired_sentence(paired(right, wrong))
    assert "could be due to chance" in paired_sentence(paired(right, np.arange(9) > 0))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["nowhere"], "no such folder"),
        (list("abcdefg"), "at most 6"),
    ],
)
def test_bad_folders(names, message, caches, screen, tmp_path):
    with pytest.raises(UserError, match=message):
        report([Path(name) for name in names], tmp_path / "r.html", caches, screen)


def test_a_report_that_fails_loses_no_run(by_hand, caches, screen, monkeypatch):
    def fail(*_):
        raise RuntimeError("the pen broke")

    monkeypatch.setattr("vision_transfer.tasks.report.page.run_page", fail)
    report_of_finished_run(by_hand.path, caches, screen)
    said = screen.console.file.getvalue()
    assert "the pen broke" in said and f"--mode=report --workdir={by_hand.path}" in said
    assert json.loads(by_hand.result_file.read_text())["name"] == "by_hand"
    assert not by_hand.report_file.exists()

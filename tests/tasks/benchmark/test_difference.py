"""Two benchmarks side by side: a case that was made slower on purpose is found, and noise is not."""

import copy
import json

import numpy as np
import pytest

from vision_transfer.errors import UserError
from vision_transfer.tasks.benchmark.difference import differences, ratio_of_medians
from vision_transfer.tasks.benchmark.worker import spread
from vision_transfer.tasks.report.task import report


def result(times, **others):
    """A benchmark's result, from the repeats of each case by its freeze spec."""
    same = {"backbone": "vgg16", "precision": "bfloat16", "work": "step", "source": "images", "batch": 8}
    records = [
        {**same, "freeze": freeze, "cached": None, "seconds": spread(repeats), "repeats": repeats}
        for freeze, repeats in times.items()
    ]
    records.append({**same, "freeze": "too large", "cached": None, "seconds": None})
    facts = {"machine": {"device": "a chip × 1", "driver": "1"}, "versions": {"jax": "0.10"}}
    return {**facts, "code_digest": "a", "config": {"seed": 1}, "measured": records, **others}


@pytest.fixture
def folders(tmp_path):
    def write(**results):
        for name, value in results.items():
            (tmp_path / name).mkdir()
            (tmp_path / name / "benchmark.json").write_text(json.dumps(value))
        return [tmp_path / name for name in results]

    return write


def noisy(seconds, seed):
    return (seconds * np.random.default_rng(seed).normal(1, 0.02, 10)).tolist()


def test_a_slowed_case_is_caught_and_the_others_are_not(folders, tmp_path, screen):
    before = result({"none": noisy(1, 0), "all": noisy(0.1, 1)})
    after = result({"none": noisy(1, 2), "all": noisy(0.12, 3)}, code_digest="b", versions={"jax": "0.11"})
    out = report(folders(before=before, after=after), tmp_path / "out.md", tmp_path, screen)
    text = out.read_text(encoding="utf-8")
    assert "slower: vgg16 bfloat16 step, frozen: all from images, batch 8, 1." in text
    assert text.count("slower:") == 1
    assert "- jax: 0.10 → 0.11" in text and "- code: a → b" in text
    assert "seed" not in text
    assert text.index("frozen: all", text.index("| case")) < text.index("frozen: none", text.index("| case"))


def test_the_same_twice_is_no_change(folders, tmp_path, screen):
    before = result({"none": noisy(1, 0), "all": noisy(0.1, 1)})
    after = result({"none": noisy(1, 4), "all": noisy(0.1, 5)})
    text = report(folders(a=before, b=after), tmp_path / "out.md", tmp_path, screen).read_text(encoding="utf-8")
    assert "nothing became slower" in text


def test_cases_that_only_one_has_are_left_out():
    before = result({"none": [1.0] * 3, "all": [1.0] * 3})["measured"]
    after = copy.deepcopy(before[:1])
    (row,) = differences(before, after)
    assert (row["ratio"], row["interval"], row["slower"], row["faster"]) == (1, [1, 1], False, False)


def test_the_interval_covers_the_true_ratio_about_as_often_as_it_says():
    rng, covered = np.random.default_rng(0), 0
    for _ in range(100):
        _, (low, high) = ratio_of_medians(rng.normal(1.1, 0.02, 10), rng.normal(1.0, 0.02, 10))
        covered += low <= 1.1 <= high
    assert covered >= 88


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ({"a": result({"none": [1.0]})}, "give two or more"),
        ({"a": result({"none": [1.0]}), "b": result({"all": [1.0]})}, "no measured case in common"),
        ({"a": result({}), "b": result({})}, "no measured cases with their repeats"),
    ],
)
def test_what_cannot_be_compared_is_said(folders, tmp_path, screen, results, message):
    with pytest.raises(UserError, match=message):
        report(folders(**results), tmp_path / "out.md", tmp_path, screen)

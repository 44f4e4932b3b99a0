"""A search as users start it: killed and continued it chooses the same, and only what it chose is tested.

`VISION_TRANSFER_CHAOS_KILLS=10 pytest tests/end_to_end/test_search.py` is the long version; by default there are a few
kills.
"""

import json
import os
import random
import signal
import time
from dataclasses import replace

import numpy as np
import pytest

from tests.end_to_end.conftest import TIMES, Place

KILLS = int(os.environ.get("VISION_TRANSFER_CHAOS_KILLS", "3"))
# From the imports to the last round.
SHORTEST_LIFE, LONGEST_LIFE = 2.0, 6.0
SEARCH = (
    "--config=search",
    "--config.dataset.name=embedded",
    "--config.dataset.channels=1",
    "--config.model.weights=random",
    "--config.search.backbones=mnist_convnet",
    "--config.search.image_sizes=(28,)",
    "--config.search.freeze=('none',)",
    "--config.search.learning_rates=(1e-3,1e-4)",
    "--config.search.most_epochs=3",
    "--config.stages.head.epochs=3",
    # enough for all: with less, how fast the machine is decides what fits
    "--config.search.minutes=60",
    "--workdir=found",
)


def choices(place):
    """What was planned, reached on validation and test, and chosen, without times."""
    journal = json.loads((place.cwd / "found" / "search.json").read_text(encoding="utf-8"))
    runs = [[run["name"] for run in planned["runs"]] for planned in journal["rounds"]]
    results = {}
    for file in (place.cwd / "runs").glob("*/config.json"):
        trained, result = file.with_name("trained.json"), file.with_name("result.json")
        name = (result if result.exists() else trained).name
        found = json.loads(file.with_name(name).read_text(encoding="utf-8"))
        stages = [(stage["name"], stage["epochs"], stage["validation"]) for stage in found["stages"]]
        test = {key: value for key, value in found.get("test", {}).items() if key not in TIMES}
        results[file.parent.name] = (name, stages, test)
    return runs, results, [run["name"] for run in journal["tested"]]


@pytest.fixture(scope="module")
def searched(tmp_path_factory, shared_cache):
    place = Place(tmp_path_factory.mktemp("search"), shared_cache)
    place.launch(*SEARCH).assert_is_done()
    return place


def test_only_the_chosen_run_is_tested(searched):
    runs, results, tested = choices(searched)
    assert len(runs) >= 2, "heads, then fine-tuning"
    assert len(tested) == 1
    assert sorted(name for name, *_ in results.values()).count("result.json") == 1
    page = (searched.cwd / "found" / "search.md").read_text(encoding="utf-8")
    assert f"Chosen: {tested[0]}" in page
    assert "Test, used once for this run" in page
    assert (searched.cwd / "found" / "front.png").exists()


def test_the_same_command_again_trains_nothing(searched):
    before = choices(searched)
    again = searched.launch(*SEARCH)
    again.assert_is_done()
    assert "Round" not in again.out
    assert choices(searched) == before


def test_a_search_that_is_killed_again_and_again_chooses_the_same(searched, place):
    kills, searches, ended = 0, 0, True
    while kills < KILLS:
        if ended:
            searches += 1
            here = replace(place, cwd=place.cwd / f"search {searches}")
        process = here.start(*SEARCH)
        time.sleep(random.uniform(SHORTEST_LIFE, LONGEST_LIFE))
        ended = process.poll() is not None
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        if ended or kills == KILLS:
            here.launch(*SEARCH).assert_is_done()
            assert choices(here) == choices(searched)


def test_several_workers_find_the_same(searched, place):
    place.launch(*SEARCH, "--launcher=processes:2").assert_is_done()
    assert choices(place) == choices(searched)


def test_too_little_time_is_refused_with_what_is_needed(searched):
    refused = searched.launch(*SEARCH[:-2], "--config.search.minutes=0.01", "--workdir=short")
    refused.assert_is_message("config.search.minutes: got 0.01", "need about")


def test_candidates_are_compared_by_folds(place):
    # a tuple that is given twice is the tuple of both
    heads = ("--config.search.heads=('logistic_regression',)", "--config.search.pooling=('average',)")
    finished = place.launch(*SEARCH, *heads, "--config.dataset.folds=2", "--config.dataset.train_examples=100")
    finished.assert_is_done()
    journal = json.loads((place.cwd / "found" / "search.json").read_text(encoding="utf-8"))
    (head,), ways, (tuned,) = [planned["runs"] for planned in journal["rounds"]]
    assert [len(way["folders"]) for way in ways] == [1, 1], "the ways to fine-tune are compared on the first fold"
    accuracies = []
    for candidate in (head, tuned):
        correct = []
        for folder in candidate["folders"]:
            with np.load(f"{folder}/predictions.npz") as found:
                correct += (found["logits"].argmax(axis=1) == found["labels"]).tolist()
        assert len(candidate["folders"]) == 2 and len(correct) == 800, "without the test split"
        accuracies.append(np.mean(correct))
    assert "compared on the images of all 2 folds" in " ".join(finished.out.split())
    assert f"on 800 images, each out of fold: {max(accuracies):.4f}" in " ".join(finished.out.split())
    (chosen,) = {file.parent for file in (place.cwd / "runs").glob("*/report.html")}
    test = json.loads((chosen / "result.json").read_text(encoding="utf-8"))["test"]
    assert test["examples"] == 997 and "folds" not in test
    page = (place.cwd / "found" / "search.md").read_text(encoding="utf-8")
    assert page.rindex(head["name"]) < page.index("first fold |"), "at the end of the table"

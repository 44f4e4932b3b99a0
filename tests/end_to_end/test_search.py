"""A search as users start it: killed and continued it chooses the same, and only what it chose is tested."""

import json
import signal
import time

import pytest

from tests.end_to_end.conftest import Place

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
    """What was planned, reached on validation and chosen, without times."""
    journal = json.loads((place.cwd / "found" / "search.json").read_text(encoding="utf-8"))
    runs = [[run["name"] for run in planned["runs"]] for planned in journal["rounds"]]
    results = {}
    for file in (place.cwd / "runs").glob("*/config.json"):
        trained, result = file.with_name("trained.json"), file.with_name("result.json")
        name = (result if result.exists() else trained).name
        found = json.loads(file.with_name(name).read_text(encoding="utf-8"))
        stages = [(stage["name"], stage["epochs"], stage["validation"]) for stage in found["stages"]]
        results[file.parent.name] = (name, stages)
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
    assert sorted(name for name, _ in results.values()).count("result.json") == 1
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
    for lived in (4.0, 6.0, 9.0):
        process = place.start(*SEARCH)
        time.sleep(lived)
        process.send_signal(signal.SIGKILL)
        process.wait()
    place.launch(*SEARCH).assert_is_done()
    assert choices(place) == choices(searched)


def test_several_workers_find_the_same(searched, place):
    place.launch(*SEARCH, "--launcher=processes:2").assert_is_done()
    assert choices(place) == choices(searched)


def test_too_little_time_is_refused_with_what_is_needed(searched):
    refused = searched.launch(*SEARCH[:-2], "--config.search.minutes=0.01", "--workdir=short")
    refused.assert_is_message("config.search.minutes: got 0.01", "need about")

"""`--mode=cache` as users start it."""

import shutil
from dataclasses import replace

import pytest


@pytest.fixture
def own_cache(place, small_run, tmp_path):
    """A place with its own cache, filled by a run."""
    small_run[1].assert_is_done()
    shutil.copytree(place.cache, tmp_path / "cache")
    return replace(place, cache=tmp_path / "cache")


def test_a_run_is_listed_and_pruned(own_cache):
    listed = own_cache.launch("--mode=cache")
    listed.assert_is_done()
    for text in ("pool2 of mnist_convnet", "20×20×1, float32", "programs", "Last used"):
        assert text in listed.out, listed.out
    pruned = own_cache.launch("--mode=cache", "--prune=features")
    pruned.assert_is_done()
    assert "removed features/" in pruned.out
    assert "freed" in pruned.out
    assert list(own_cache.cache.glob("features/*/*")) == []
    assert list(own_cache.cache.glob("compiled/*-cache")) != []


def test_an_unknown_selection_is_reported(place):
    place.launch("--mode=cache", "--prune=everything").assert_is_message("--prune=everything", "older_than:AGE")

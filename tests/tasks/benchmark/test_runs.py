"""Whole runs against a stub of Keras, and the input path compared with the step that it feeds."""

import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vision_transfer.config import checked, default_config
from vision_transfer.errors import UserError
from vision_transfer.tasks.benchmark import measure, whole_runs
from vision_transfer.tasks.benchmark.tables import comparison_table, input_path_table, whole_runs_table
from vision_transfer.tasks.benchmark.whole_runs import WholeRun, compare_whole_runs
from vision_transfer.tasks.benchmark.worker import worker

SMALL = Path(__file__).parents[2] / "end_to_end" / "configs" / "small.py"
STUB = """
    import time
    from vision_transfer.tasks.benchmark.protocol import serve

    def build(request):
        seconds = {"extraction": 0.1, "epoch": 0.2}[request["work"]]
        return lambda times: time.sleep(seconds * times), {"device": "cpu", "library": "stub 1"}, dict

    if __name__ == "__main__":
        serve(build)
"""


@pytest.fixture
def config(tmp_path):
    config = default_config()
    config.task = "benchmark"
    config.dataset.root = str(tmp_path / "images")
    return config


@pytest.fixture
def stubbed(tmp_path, monkeypatch):
    (tmp_path / "stub_run.py").write_text(textwrap.dedent(STUB))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(whole_runs, "KERAS_RUN", "stub_run")
    # a network that is compiled in a second
    small = (f"--config={SMALL}:epochs=1", "--config.schedule=('whole',)", "--config.model.backbone=dense")
    runs = {
        "cold": WholeRun("cold", (small,), (("extraction", 1), ("epoch", 10))),
        "warm": WholeRun("warm", (small, (*small, "--config.seed=1")), (("extraction", 1),)),
        "broken": WholeRun("broken", (("--config=none.py",),), (("extraction", 1),)),
    }
    monkeypatch.setattr(whole_runs, "RUNS", runs)


@pytest.fixture
def found_in_cache(monkeypatch):
    """Whether each command found something in its cache."""
    found, launch = [], whole_runs._launch

    def watched(flags, cache):
        found.append(any(file.is_file() for file in cache.rglob("*")))
        return launch(flags, cache)

    monkeypatch.setattr(whole_runs, "_launch", watched)
    return found


def test_a_second_run_has_the_cache_of_the_first_and_multiplied_epochs_are_marked(
    config, stubbed, found_in_cache, tmp_path, screen
):
    cold, _ = compare_whole_runs(checked(config), ("cold", "warm"), sys.executable, tmp_path / "cache", screen)
    assert found_in_cache == [False, False, True]
    assert cold["keras"]["seconds"] == pytest.approx(0.1 + 10 * 0.2, rel=0.2)
    assert cold["ratio"] == cold["ours"]["seconds"] / cold["keras"]["seconds"]
    assert cold["ours"]["peak_memory_bytes"] > 50e6
    low, high = cold["ours"]["test"]["accuracy_ci95"]
    assert low < cold["ours"]["test"]["accuracy"] < high
    screen.say(whole_runs_table([cold]))
    said = screen.console.file.getvalue()
    assert "≈ 2" in said


def test_runs_that_fail_are_reported(config, stubbed, tmp_path, screen):
    with pytest.raises(UserError, match=r"none\.py"):
        compare_whole_runs(checked(config), ("broken",), sys.executable, tmp_path, screen)
    with pytest.raises(UserError, match="'walk'; allowed are cold, warm"):
        compare_whole_runs(checked(config), ("walk",), sys.executable, tmp_path, screen)
    config.dataset.root = None
    with pytest.raises(UserError, match=r"dataset\.root"):
        compare_whole_runs(checked(config), ("cold",), sys.executable, tmp_path, screen)


def test_the_input_path_is_compared_with_the_step(tmp_path, screen):
    random = np.random.default_rng(0)
    for split in ("train", "validation", "test"):
        for name in ("a", "b"):
            (tmp_path / "images" / split / name).mkdir(parents=True)
            for number in range(3):
                pixels = random.integers(0, 256, (20, 20, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "images" / split / name / f"{number}.png")
    request = {"root": str(tmp_path / "images"), "size": 16, "channels": 3, "batch": 4, "repeats": 2}
    request["cache"] = str(tmp_path / "cache")
    with worker("input", f"{measure.MODULES}.input_path", request) as input_path:
        rates = input_path.facts
    assert 0 < rates["decoded"] < rates["fed"]
    screen.say(input_path_table({"step": {"name": "a step", "images_per_second": rates["fed"] / 8}, **rates}))
    assert "8.0" in screen.console.file.getvalue()


def test_cached_steps_are_compared_with_the_peers_step_from_images():
    def record(source, own, theirs):
        def library(seconds):
            times = {"median": seconds, "first_quartile": seconds, "third_quartile": seconds, "repeats": 1}
            return {"seconds": times, "peak_memory_bytes": seconds * 1e9, "library": "x", "device": "cpu"}

        ratio = {"time": own / theirs, "time_quartiles": [0, 1], "peak_memory": own / theirs}
        libraries = {"ours": library(own), "keras": library(theirs)}
        same = {"name": source, "work": "step", "freeze": "all", "batch": 2, "source": source}
        return {**same, "libraries": libraries, "ratios": {"keras": ratio}}

    records = [record("images", 4, 8), record("features", 1, 5)]
    first, second = [measure._with_ratios_to_images(one, records) for one in records]
    assert first == records[0]
    assert second["ratios"]["keras"]["time"] == 1 / 5
    assert second["ratios"]["keras"]["time_beside_images"] == 1 / 8
    assert comparison_table([first, second]).row_count == 7

"""The modes predict, evaluate and export of a finished run, as users start them."""

import csv
import json

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def run_flag(small_run):
    return f"--workdir={small_run[2].path}"


def test_predict_writes_a_row_for_each_file(run_flag, place):
    (place.cwd / "my images é").mkdir(parents=True)
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (30, 20), dtype=np.uint8)
        Image.fromarray(pixels).save(place.cwd / "my images é" / f"{number}.png")
    (place.cwd / "my images é" / "broken.png").write_bytes(b"\x89PNG no image")
    finished = place.launch("--mode=predict", run_flag, "--images=my images é/*.png", "--out=out/predictions.csv")
    finished.assert_is_done()
    with (place.cwd / "out" / "predictions.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["file"] for row in rows] == [f"my images é/{name}.png" for name in ("0", "1", "2", "broken")]
    assert [bool(row["error"]) for row in rows] == [False, False, False, True]
    for row in rows[:3]:
        shares = {name: float(row[f"probability_{name}"]) for name in map(str, range(10))}
        assert sum(shares.values()) == pytest.approx(1)
        assert max(shares, key=shares.get) == row["class"]
    assert "negative log-likelihood" in finished.out


def test_evaluate_repeats_the_metrics_of_the_run(run_flag, place, small_run):
    finished = place.launch("--mode=evaluate", run_flag)
    finished.assert_is_done()
    test = small_run[2].result()["test"]
    assert f"Accuracy {test['accuracy']:.4f}" in finished.out
    assert f"In result.json: accuracy {test['accuracy']:.4f}, loss {test['loss']:.4f}" in finished.out


def test_evaluate_averages_over_views_and_runs(run_flag, place, small_run):
    runs = f"{run_flag},{small_run[2].path}"
    finished = place.launch("--mode=evaluate", runs, "--views=shifts,flip", "--out=metrics.json")
    finished.assert_is_done()
    metrics = json.loads((place.cwd / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["views"] == ["as_it_is", "moved_up_left", "moved_down_right", "mirrored"]
    assert len(metrics["runs"]) == 2
    assert f"Accuracy {metrics['accuracy']:.4f}" in finished.out


def test_export_makes_a_folder_with_a_card(run_flag, place):
    finished = place.launch("--mode=export", run_flag, "--format=onnx", "--out=taken away")
    finished.assert_is_done()
    assert sorted(file.name for file in (place.cwd / "taken away").iterdir()) == ["README.md", "model.onnx"]
    assert "ONNX Runtime" in finished.out


@pytest.mark.parametrize("mode", ["predict", "evaluate", "export"])
def test_without_a_run_a_message_names_the_missing_flag(mode, place):
    place.launch(f"--mode={mode}").assert_is_message(f"--mode={mode} needs --workdir=RUN")

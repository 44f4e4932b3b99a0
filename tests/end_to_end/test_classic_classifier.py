"""A support vector machine on selected layers, as users start it: a finished run of it is used like any other."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.end_to_end.conftest import Place, Run

CONFIG = f"--config={Path(__file__).parent / 'configs' / 'classic.py'}"


@pytest.fixture(scope="module")
def classic(tmp_path_factory, shared_cache):
    """The place, the output and the folder of a run."""
    place = Place(tmp_path_factory.mktemp("classic"), shared_cache)
    finished = place.launch(CONFIG, "--workdir=run", "--config.log.report=True")
    finished.assert_is_done()
    return place, finished, Run(place.cwd / "run")


def test_the_selection_is_recorded_and_shown(classic):
    _, finished, run = classic
    found = run.result()["classifier"]
    sets = {tuple(one["layers"]): one["validation_accuracy"] for one in found["layer_sets"]}
    assert [list(layers) for layers in list(sets)[:3]] == [["pool1"], ["pool2"], ["conv3"]]
    assert ("pool1", "pool2", "conv3") in sets
    assert run.result()["tested"]["validation"]["accuracy"] == pytest.approx(sets[tuple(found["layers"])])
    assert f"{', '.join(found['layers'])}  selected" in finished.out
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert f"svm, C {found['c']}, on {', '.join(found['layers'])}" in page
    assert "rmsprop, lr" not in page
    assert "layers of 2×2 cells" in page and "layers of 2×2 cells" in finished.out


def test_margins_become_calibrated_probabilities(classic):
    """A margin is no log-odds: the temperature that validation chooses makes its softmax one."""
    place, _, run = classic
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 20), dtype=np.uint8)).save(place.cwd / "0.png")
    finished = place.launch("--mode=predict", "--workdir=run", "--images=0.png", "--out=predictions.csv")
    finished.assert_is_done()
    calibration = json.loads((run.path / "temperature.json").read_text(encoding="utf-8"))
    before, after = calibration["test"]["nll"]
    assert after < before
    assert f"divided by the temperature {calibration['temperature']:.3g}" in finished.out
    with (place.cwd / "predictions.csv").open(encoding="utf-8", newline="") as stream:
        (row,) = csv.DictReader(stream)
    shares = [float(row[f"probability_{name}"]) for name in range(10)]
    assert sum(shares) == pytest.approx(1)
    assert row["class"] == str(np.argmax(shares))


def test_an_export_s_card_names_the_classifier(classic):
    place, _, run = classic
    place.launch("--mode=export", "--workdir=run", "--format=onnx", "--out=taken").assert_is_done()
    assert (place.cwd / "taken" / "model.onnx").exists()
    card = (place.cwd / "taken" / "README.md").read_text(encoding="utf-8")
    assert f"svm, C {run.result()['classifier']['c']}, on" in card


def test_heat_maps_pass_through_the_pooled_layers(classic):
    place, _, _ = classic
    place.launch("--mode=explain", "--workdir=run", "--show=grad_cam").assert_is_done()

"""One scale of probability: a run's temperature in everything that says how sure the network is of an image."""

import json
import shutil

import jax
import numpy as np
import pytest

from vision_transfer.data.images.decode import decode_file
from vision_transfer.data.images.resize import resize
from vision_transfer.metrics.classification import class_log_probabilities
from vision_transfer.predict import Predictor
from vision_transfer.predict.run import Run
from vision_transfer.tasks.evaluate import evaluate
from vision_transfer.tasks.explain.task import ExplainFlags, explain
from vision_transfer.tasks.export.task import export
from vision_transfer.tasks.report.run_files import read_run_files

TEMPERATURE = 3.0


@pytest.fixture
def scaled_run(finished_run, tmp_path, seal):
    """The run as if validation had chosen this temperature."""
    copy = shutil.copytree(finished_run, tmp_path / "copy")
    file = copy / "temperature.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"temperature": TEMPERATURE}))
    seal(copy)
    return copy


def test_everything_says_the_same_probability(scaled_run, class_folders, run_caches, screen, tmp_path):
    with np.load(scaled_run / "predictions.npz") as arrays:
        file, logits = class_folders / str(arrays["files"][0]), arrays["logits"]
    expected = np.exp(class_log_probabilities(logits.astype(np.float64) / TEMPERATURE))
    assert abs(expected[0].max() - np.exp(class_log_probabilities(logits[:1].astype(np.float64))).max()) > 0.01
    (predicted,) = Predictor.load(scaled_run, run_caches)([file])
    np.testing.assert_allclose(predicted.probabilities, expected[0], rtol=1e-5)
    assert Run(scaled_run).predictions.probability[0] == pytest.approx(expected[0].max(), rel=1e-5)
    page = read_run_files(scaled_run).predictions
    np.testing.assert_allclose(np.exp(page.log_probabilities), expected, rtol=1e-5)

    flags = ExplainFlags(scaled_run, images=str(file), show="smooth_grad", out=tmp_path / "explained")
    explain(flags, run_caches, screen)
    assert f"{file.stem}: {predicted.class_name} {expected[0].max():.3f}" in screen.console.file.getvalue()

    export(scaled_run, str(tmp_path / "exported"), "stablehlo", run_caches, screen)
    exported = jax.export.deserialize(bytearray((tmp_path / "exported/model.stablehlo").read_bytes()))
    size = exported.in_avals[0].shape[1]
    pixels = resize(decode_file(file, 3), size, "bilinear").astype(np.float32)
    found = np.asarray(exported.call(pixels[None])["probabilities"])
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-4)

    evaluate([scaled_run], None, None, tmp_path / "metrics.json", run_caches, screen)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["temperature"] == TEMPERATURE
    labels = Run(scaled_run).predictions.label.map(metrics["classes"].index)
    nll = -np.log(expected[np.arange(len(labels)), labels]).mean()
    assert metrics["calibrated"]["nll"][1] == pytest.approx(nll, rel=1e-5)

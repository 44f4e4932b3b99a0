"""The output of a finished run: `result.json`, `metrics.jsonl`, `predictions.npz`, and the screen."""

import json
import math
import os
import shlex
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss

from vision_transfer.tasks.cache import KINDS

SMALL = f"--config={Path(__file__).parent / 'configs' / 'small.py'}"
VGG = f"--config={Path(__file__).parent / 'configs' / 'random_weights.py'}"


@pytest.fixture(scope="session")
def vgg_run(small_run, tmp_path_factory, image_folder, shared_cache):
    """VGG16 with random weights on the image folder, given by a relative path, with a default run folder."""
    place = type(small_run[0])(tmp_path_factory.mktemp("vgg"), shared_cache)
    (place.cwd / "here").symlink_to(image_folder.parent, target_is_directory=True)
    finished = place.launch(VGG, f"--config.dataset.root=here/{image_folder.name}")
    finished.assert_is_done()
    (folder,) = (place.cwd / "runs").iterdir()
    return place, finished, type(small_run[2])(folder)


def test_fields_of_the_result(small_run):
    result = small_run[2].result()
    assert result["name"] == "small"
    assert len(result["digest"]) == len(result["code_digest"]) == 16
    assert set(result["dataset"]) >= {"name", "fingerprint", "classes", "sizes"}
    assert result["dataset"]["sizes"] == {"train": 200, "validation": 200, "test": 997}
    assert result["dataset"]["classes"] == [str(digit) for digit in range(10)]
    assert set(result["weights"]) >= {"source", "sha256"}
    assert result["weights"]["sha256"] is None
    assert set(result["parameters"]) == {"total", "trainable", "frozen"}
    assert [stage["name"] for stage in result["stages"]] == ["whole", "top"]
    for stage in result["stages"]:
        assert set(stage) >= {"name", "freeze", "cut", "epochs", "best_epoch", "train", "validation", "parameters"}
        assert set(stage["train"]) == set(stage["validation"]) == {"loss", "accuracy"}
        assert 1 <= stage["best_epoch"] <= stage["epochs"] == 2
        assert stage["parameters"]["total"] == stage["parameters"]["trainable"] + stage["parameters"]["frozen"]
        assert stage["seconds"] > 0 and stage["step_ms"] > 0 and stage["epoch_seconds"] > 0
    assert result["stages"][0]["cut"] == "conv1"
    assert result["stages"][1]["cut"] == "conv3"
    fields = {"loss", "accuracy", "accuracy_ci95", "examples", "confusion", "balanced_accuracy", "per_class"}
    assert set(result["test"]) == fields | {"roc_auc", "average_precision", "kappa", "matthews", "top_k"}
    assert set(result["seconds"]) == {"total", "data", "features", "train", "evaluate"}
    assert math.isclose(sum(result["seconds"].values()), 2 * result["seconds"]["total"], abs_tol=0.01)
    assert {"python", "jax", "flax", "optax"} <= set(result["versions"])
    assert "cpu" in result["device"] or "gpu" in result["device"] or "tpu" in result["device"]


def test_predictions_give_the_test_metrics(small_run):
    run = small_run[2]
    test = run.result()["test"]
    with np.load(run.path / "predictions.npz", allow_pickle=False) as predictions:
        logits, labels, files = (predictions[name] for name in ("logits", "labels", "files"))
    assert logits.shape == (997, 10) and logits.dtype == np.float32
    assert len(set(files.tolist())) == len(labels) == 997
    wide = logits.astype(np.float64)
    probabilities = np.exp(wide - wide.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    assert test["examples"] == 997
    assert math.isclose(test["accuracy"], accuracy_score(labels, logits.argmax(axis=1)), rel_tol=1e-12)
    assert test["confusion"] == confusion_matrix(labels, logits.argmax(axis=1)).tolist()
    assert math.isclose(test["loss"], log_loss(labels, probabilities), rel_tol=1e-9)
    low, high = test["accuracy_ci95"]
    assert low < test["accuracy"] < high
    assert 0.2 < test["accuracy"] < 1  # it learned something


def test_metrics_have_a_line_per_stage_and_epoch(small_run):
    lines, result = small_run[2].metrics(), small_run[2].result()
    assert [(line["stage"], line["epoch"]) for line in lines] == [("whole", 1), ("whole", 2), ("top", 1), ("top", 2)]
    for line in lines:
        assert set(line) >= {"train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "lr", "seconds"}
        assert all(isinstance(line[key], float) for key in line if key not in ("stage", "epoch"))
    for stage in result["stages"]:
        own = [line for line in lines if line["stage"] == stage["name"]]
        best = min(own, key=lambda line: line["validation_loss"])
        assert best["epoch"] == stage["best_epoch"]
        assert best["validation_loss"] == stage["validation"]["loss"]
        assert best["train_accuracy"] == stage["train"]["accuracy"]
    assert lines[0]["lr"] == pytest.approx(3e-3) and lines[-1]["lr"] == pytest.approx(1e-4)


def test_content_of_the_run_folder(small_run):
    place, _, run = small_run
    found = {path.name for path in run.path.iterdir()} - {".lock"}
    assert found == {
        "config.json",
        "identity.json",
        "manifest.json",
        "metrics.jsonl",
        "cached_layers.json",
        "checkpoints",
        "figures",
        "predictions.npz",
        "report.html",
        "result.json",
        "temperature.json",
    }
    assert {path.name for path in (run.path / "checkpoints").iterdir()} == {"whole", "top"}
    run.assert_nothing_left_behind()
    outside = {path.name for path in place.cwd.iterdir()} - {run.path.name, "stdout.txt", "stderr.txt"}
    assert outside == set()
    # "parts" if a test before this one used parts of its own
    not_listed = {"locks", "matplotlib", "parts", "weights.lock"}
    assert {path.name for path in place.cache.iterdir()} <= set(KINDS) | not_listed


def test_first_screen(small_run):
    _, finished, _ = small_run
    assert finished.err == ""
    shown = " ".join(finished.out.split())
    assert "embedded digits: 10 classes of 20×20×1 images 200 train, 200 validation, 997 test" in shown
    assert "Weights random initialisation" in shown
    assert "Run folder mein Lauf é" in shown
    assert "trainable 10 tensors" in shown and "frozen 0 tensors, 0 parameters" in shown
    assert "trainable 6 tensors" in shown and "frozen 4 tensors, 18,816 parameters" in shown
    assert "from the images" in shown and "from cached pool2" in shown


def test_closing_table(small_run):
    _, finished, run = small_run
    result = run.result()
    closing = finished.out.partition("small on embedded digits")[2]
    for stage in result["stages"]:
        assert f"{stage['name']}, validation" in closing
        assert f"{stage['validation']['accuracy']:.4f}" in closing
        assert f"{stage['parameters']['trainable']:,}" in closing
    low, high = result["test"]["accuracy_ci95"]
    assert f"Test accuracy {result['test']['accuracy']:.4f}, 95 % interval {low:.4f} to {high:.4f}" in closing
    assert "Results in mein Lauf é: result.json, metrics.jsonl, predictions.npz, report.html, checkpoints/" in closing


def suggested_flags(out):
    lines = out.partition("Next, try adding one of these flags:\n")[2].splitlines()
    assert len(lines) >= 2
    return [shlex.split(line)[0] for line in lines if line.strip()]


def test_every_suggestion_works(small_run, vgg_run, place, image_folder):
    vgg = [VGG, f"--config.dataset.root={image_folder}"]
    for command, run in (([SMALL], small_run), (vgg, vgg_run)):
        flags = suggested_flags(run[1].out)
        assert len(flags) == 3 and "--mode=summary" in flags
        place.launch(*command, *flags).assert_is_done()


def test_the_depth_suggested_for_vgg16(vgg_run):
    assert "--config.stages.block5.freeze=below:block4_conv1" in suggested_flags(vgg_run[1].out)


def test_automatic_data_names_its_choice_and_the_alternative(place, image_folder):
    flags = (SMALL, "--config.dataset.name=auto", "--config.dataset.image_size=20", "--config.schedule=('whole',)")
    finished = place.launch(*flags, "--config.stages.whole.epochs=1")
    finished.assert_is_done()
    shown = " ".join(finished.out.split())
    assert "handwritten digits" in shown
    assert "$VISION_TRANSFER_DATA is not set" in shown
    assert "cats_vs_dogs_small" in shown and "--config.dataset.root" in shown
    assert "--config.dataset.root=FOLDER" in suggested_flags(finished.out)


def test_imagenet_weights_name_their_source(place, image_folder):
    cached = Path(os.environ.get("VISION_TRANSFER_CACHE", "")) / "weights" / "vgg16_notop.safetensors"
    if "VISION_TRANSFER_CACHE" not in os.environ or not cached.is_file():
        pytest.skip("$VISION_TRANSFER_CACHE holds no VGG16 weights; `python launch.py --mode=fetch` puts them there")
    own = place.cache / "weights" / cached.name
    own.parent.mkdir(exist_ok=True)
    own.symlink_to(cached.absolute())
    flags = [VGG, f"--config.dataset.root={image_folder}", "--config.schedule=('head',)", "--workdir=run"]
    try:
        finished = place.launch(*flags, "--config.model.weights=imagenet")
    finally:
        own.unlink()
    finished.assert_is_done()
    shown = " ".join(finished.out.split())
    assert "VGG16" in shown and "CC BY 4.0" in shown
    weights = json.loads((place.cwd / "run" / "result.json").read_text())["weights"]
    assert weights["sha256"] == "d9a27cc1fc7f975ef8cff49180e794ccd7c4bc868ebb49740803b3bbaa8dbefd"
    assert weights["source"] in shown


class TestFolder:
    def test_screen(self, vgg_run, image_folder):
        shown = " ".join(vgg_run[1].out.split())
        assert f"{image_folder.name}: 2 classes of 32×32×3 images 16 train, 8 validation, 10 test" in shown
        assert "one sigmoid; caffe input" in shown
        assert "left out: train/dark/broken.jpg: " in shown
        assert "trainable 4 tensors, 4,113 parameters; frozen 26 tensors, 14,714,688 parameters" in shown
        assert "trainable 10 tensors, 7,083,537 parameters; frozen 20 tensors, 7,635,264 parameters" in shown
        assert "Stage head: 1 epoch of 2 steps, from cached block5_pool" in shown

    def test_result(self, vgg_run):
        run = vgg_run[2]
        result = run.result()
        assert result["dataset"]["classes"] == ["bright", "dark"]
        assert result["dataset"]["sizes"] == {"train": 16, "validation": 8, "test": 10}
        assert [skipped["file"] for skipped in result["dataset"]["skipped"]] == ["train/dark/broken.jpg"]
        assert result["parameters"] == {"total": 14718801, "trainable": 7083537, "frozen": 7635264}
        assert run.path.name == f"vgg16_random-{result['digest'][:12]}"
        with np.load(run.path / "predictions.npz", allow_pickle=False) as predictions:
            assert predictions["logits"].shape == (10, 1)
            predicted = (predictions["logits"][:, 0] > 0).astype(int)
            assert (
                confusion_matrix(predictions["labels"], predicted, labels=[0, 1]).tolist()
                == result["test"]["confusion"]
            )
            assert sorted(predictions["files"].tolist())[0] == "test/bright/bright 0.jpg"

    def test_same_data_under_another_path_is_the_same_run(self, vgg_run, image_folder):
        place = vgg_run[0]
        finished = place.launch(VGG, f"--config.dataset.root={image_folder}")
        finished.assert_is_done()
        assert "This run is finished" in finished.out

"""Cross-validation as users start it: every image is predicted once, nothing is done twice, one run is to be used."""

import csv
import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

import vision_transfer
from tests.end_to_end.conftest import CONFIGS, Place, Run
from vision_transfer.data.dataset import DIGEST_BYTES

FOLDS = (
    f"--config={CONFIGS / 'small.py'}:epochs=1,images=0",
    "--config.dataset.name=folder",
    "--config.dataset.folds=2",
    "--config.dataset.validation_fraction=0.2",
    "--config.schedule=('whole',)",
    "--config.decision.abstain_risk=0.9",
    "--workdir=folds",
)


@pytest.fixture(scope="module")
def unsplit(tmp_path_factory, image_folder):
    """The images of the classes' training folders, without splits."""
    root = tmp_path_factory.mktemp("unsplit") / "images"
    for split in ("train", "test"):
        for name in ("bright", "dark"):
            (root / name).mkdir(parents=True, exist_ok=True)
            for file in (image_folder / split / name).iterdir():
                shutil.copy(file, root / name / f"{split} {file.name}")
    return root


def content(place):
    return json.loads((place.cwd / "folds" / "folds.json").read_text(encoding="utf-8"))


def numbers(place):
    """`folds.json` without paths."""
    found = content(place)
    return found | {
        "folds": [{key: fold[key] for key in fold if key != "folder"} for fold in found["folds"]],
        "final": found["final"]["test"],
    }


@pytest.fixture(scope="module")
def validated(tmp_path_factory, shared_cache, unsplit):
    place = Place(tmp_path_factory.mktemp("folds"), shared_cache)
    finished = place.launch(*FOLDS, f"--config.dataset.root={unsplit}")
    finished.assert_is_done()
    return place, finished


def test_every_image_is_predicted_once_by_a_run_that_has_not_seen_it(validated, unsplit):
    place, _ = validated
    images = {f"{file.parent.name}/{file.name}" for file in unsplit.rglob("*.*") if "broken" not in file.name}
    with (place.cwd / "folds" / "images.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert sorted(row["file"] for row in rows) == sorted(images)
    doubts = [float(row["probability of label"]) for row in rows]
    assert doubts == sorted(doubts)
    found = content(place)
    assert found["accuracy"] == np.mean([row["label"] == row["class"] for row in rows])
    assert found["examples"] == sum(map(sum, found["confusion"])) == len(images)
    for fold in found["folds"]:
        with np.load(Path(fold["folder"]) / "predictions.npz") as saved:
            assert set(saved["files"]) == {row["file"] for row in rows if row["fold"] == str(fold["fold"])}


def test_the_final_run_is_trained_on_all_and_has_the_folds_accuracy(validated):
    place, finished = validated
    found = content(place)
    final = Run(Path(found["final"]["folder"]))
    result = final.result()
    assert result["dataset"]["sizes"]["test"] == 0
    assert result["dataset"]["sizes"]["train"] + result["dataset"]["sizes"]["validation"] == found["examples"]
    assert (result["test"]["folds"], result["test"]["accuracy"]) == (2, found["accuracy"])
    assert result["test"]["accuracy_ci95"] == found["accuracy_ci95"]
    assert found["final"]["test"] is None
    said = " ".join(finished.out.split())
    assert "Expected accuracy" in said
    assert said.endswith(final.path.relative_to(place.cwd).as_posix())


def test_the_folds_networks_say_nothing_about_the_final_runs_temperature_and_threshold(validated):
    found = content(validated[0])
    for folder, is_tested in ((found["folds"][0]["folder"], True), (found["final"]["folder"], False)):
        for name in ("temperature.json", "decision.json"):
            kept = json.loads((Path(folder) / name).read_text(encoding="utf-8"))
            assert (kept["test"] is not None) == is_tested
            assert kept["validation"] is not None
    final = Path(found["final"]["folder"])
    assert "decision" not in vision_transfer.Run(final).predictions
    assert "decision" in vision_transfer.Run(Path(found["folds"][0]["folder"])).predictions
    validated[0].launch("--mode=report", f"--workdir={final}").assert_is_done()
    assert "those of the folds, predicted these images" in (final / "report.html").read_text(encoding="utf-8")


def test_the_final_run_predicts_and_says_why_it_cannot_be_tested(validated, unsplit):
    place, _ = validated
    folder = content(place)["final"]["folder"]
    out = place.cwd / "predicted.csv"
    place.launch(
        "--mode=predict", f"--workdir={folder}", f"--images={unsplit}/dark/*.png", f"--out={out}"
    ).assert_is_done()
    assert out.exists()
    place.launch("--mode=evaluate", f"--workdir={folder}").assert_is_message("all folds", "--images=FOLDER")


def test_the_same_command_again_trains_nothing(validated, unsplit):
    place, _ = validated
    before = content(place)
    again = place.launch(*FOLDS, f"--config.dataset.root={unsplit}")
    again.assert_is_done()
    assert "Run 1 of 2" not in again.out
    assert content(place) == before


def test_killed_or_with_two_workers_it_finds_the_same(validated, place, unsplit):
    flags = (*FOLDS, f"--config.dataset.root={unsplit}")
    process = place.start(*flags)
    records = place.cwd / "folds" / "records"
    assert place.wait_for(process, lambda: any(records.glob("*.json")))
    process.send_signal(signal.SIGKILL)
    process.wait()
    place.launch(*flags, "--launcher=processes:2").assert_is_done()
    assert numbers(place) == numbers(validated[0])


def test_what_the_data_does_not_allow_is_said(place, unsplit):
    root = f"--config.dataset.root={unsplit}"
    place.launch(*FOLDS, root, "--config.dataset.folds=14").assert_is_message("at most 13 folds are possible")
    place.launch(*FOLDS, root, "--config.dataset.folds=1").assert_is_message("config.dataset.folds: got 1")
    place.launch(*FOLDS, root, "--config.dataset.fold=3").assert_is_message("config.dataset.fold: got 3")


def test_folds_share_features_and_a_test_split_of_the_data_is_kept_for_the_final_run(tmp_path, image_folder):
    place = Place(tmp_path / "work", tmp_path / "cache of its own, whose rows are counted")
    place.launch(
        "--config=lower_layers:layer=block2_pool,head=logistic,size=32",
        "--config.model.weights=random",
        f"--config.dataset.root={image_folder}",
        "--config.dataset.folds=2",
        "--config.log.report=False",
        "--workdir=folds",
    ).assert_is_done()
    stores = (file for file in place.cache.glob("features/*/*.json") if file.name != "description.json")
    keys = [bytes.fromhex(json.loads(file.read_text())["content"]["rows"]) for file in stores]
    found = content(place)
    assert found["examples"] == 2 * (8 + 4), "without the broken file and the test split"
    assert found["final"]["test"]["examples"] == 2 * 5
    assert sum(map(len, keys)) == 2 * (8 + 4 + 5) * DIGEST_BYTES, "each image once"

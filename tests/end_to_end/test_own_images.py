"""Users' own images: folders without splits, tables, unbalanced classes, and the check before training."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import balanced_accuracy_score, precision_recall_fscore_support

OWN = f"--config={Path(__file__).parent / 'configs' / 'own_images.py'}"
# Darkest grey level of each class's noise, and its number of images.
CLASSES = {"bright": (110, 8), "dim": (60, 28)}


@pytest.fixture(scope="module")
def own_folder(tmp_path_factory):
    """Noise images in class folders, many more dim than bright."""
    root = tmp_path_factory.mktemp("own") / "my images é"
    random = np.random.default_rng(0)
    for name, (lowest, count) in CLASSES.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            pixels = random.integers(lowest, lowest + 100, (24, 30, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


def result_of(place, workdir):
    return json.loads((place.cwd / workdir / "result.json").read_text(encoding="utf-8"))


def test_an_unsplit_unbalanced_folder(place, own_folder):
    balances = {"plain": "none", "class_weights": "class_weights", "sampling": "sampling"}
    flags = (OWN, "--config.log.report=False", f"--config.dataset.root={own_folder}")
    finished = place.launch_in_turn(
        *([*flags, f"--config.balance={balance}", f"--workdir={name}"] for name, balance in balances.items())
    )
    finished.assert_is_done()
    result = result_of(place, "plain")
    assert result["dataset"]["sizes"] == {"train": 20, "validation": 7, "test": 9}
    test = result["test"]
    assert [row["class"] for row in test["per_class"]] == ["bright", "dim"]
    with np.load(place.cwd / "plain/predictions.npz") as saved:
        labels, predicted = saved["labels"], (saved["logits"][:, 0] > 0).astype(int)
    assert test["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, predicted))
    expected = precision_recall_fscore_support(labels, predicted, labels=[0, 1], zero_division=np.nan)
    for name, values in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        for row, value in zip(test["per_class"], values, strict=True):
            assert row[name] == (None if np.isnan(value) else pytest.approx(value))
    assert "Classes of 2 to 7 test images: balanced accuracy" in finished.out
    losses = {result["stages"][0]["train"]["loss"]}
    for name in ("class_weights", "sampling"):
        balanced = result_of(place, name)
        assert balanced["digest"] != result["digest"]
        assert balanced["dataset"] == result["dataset"]
        losses.add(balanced["stages"][0]["train"]["loss"])
    assert len(losses) == 3


def test_a_table(place, own_folder):
    rows = [f"{path.relative_to(own_folder).as_posix()};{path.parent.name}" for path in own_folder.rglob("*.png")]
    table = own_folder / "table.csv"
    table.write_text("\n".join(["path;label", *rows]) + "\n", encoding="utf-8")
    place.launch(OWN, f"--config.dataset.root={table}", "--mode=summary").assert_is_done()
    table.write_text("\n".join(["path;label", *rows, "bright/0.png;dim"]) + "\n", encoding="utf-8")
    place.launch(OWN, f"--config.dataset.root={table}").assert_is_message(
        "--config.dataset.root", "line 38, column path", "in line "
    )


def test_the_check(place, own_folder):
    (own_folder / "dim" / "broken.png").write_bytes(b"no image")
    finished = place.launch(OWN, f"--config.dataset.root={own_folder}", "--mode=check", "--out=found")
    finished.assert_is_done()
    report = json.loads((place.cwd / "found/check.json").read_text(encoding="utf-8"))
    assert report["counts"]["unreadable"] == 1
    assert "dim/broken.png" in finished.out
    assert "Labels were not checked" in finished.out
    place.launch(OWN, "--config.dataset.root=nowhere", "--mode=check").assert_is_message("--config.dataset.root")

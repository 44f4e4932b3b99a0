"""One definition of an image file for every mode; hostile names, closed pipes and other encodings."""

import csv
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

OWN = f"--config={Path(__file__).parent / 'configs' / 'own_images.py'}"
LAUNCH = Path(__file__).parents[2] / "launch.py"
PER_CLASS = 14
# No formula; brackets of patterns and of markup; letters that matplotlib's font lacks; control characters.
BRIGHT, DIM = "$a$b [red] 猫", "dim\n\x1b[31m"
SHOWN_DIM = r"dim\n\x1b[31m"


@pytest.fixture(scope="module")
def odd_folder(tmp_path_factory):
    """Two classes of hostile names, images under all kinds of names, and what people and systems leave beside them."""
    root = tmp_path_factory.mktemp("odd") / "photos [1]"
    random = np.random.default_rng(0)
    for name, lowest in ((BRIGHT, 110), (DIM, 20)):
        (root / name / "@eaDir").mkdir(parents=True)
        for number in range(PER_CLASS):
            image = Image.fromarray(random.integers(lowest, lowest + 90, (24, 30, 3), dtype=np.uint8))
            kind, ending = (("PNG", ""), ("JPEG", ".jfif"), ("PPM", ".ppm"), ("PNG", ".png"))[number % 4]
            image.save(root / name / f"{number}{ending}", kind)
            image.save(root / name / "@eaDir" / f"{number}.jpg")
        image.save(root / name / "new\nline \x1b[31m.png")
        (root / name / "._0.png").write_bytes(b"\0\5\x16\7")
        (root / name / "notes.txt").write_text("a text")
    return root


def test_every_mode_takes_the_same_images(place, odd_folder, tmp_path):
    """Training, evaluation, prediction, explanation and the check, with the folder's name as a pattern, too.

    None of them writes into the user's home.
    """
    images, home = 2 * (PER_CLASS + 1), tmp_path / "home"
    home.mkdir()
    place = replace(place, variables={"HOME": str(home)})
    finished = place.launch(OWN, f"--config.dataset.root={odd_folder}", "--workdir=run")
    finished.assert_is_done()
    assert "note: " in finished.out and "test images" in finished.out, "a small test split is pointed out"
    result = json.loads((place.cwd / "run/result.json").read_text(encoding="utf-8"))
    assert sum(result["dataset"]["sizes"].values()) == images
    assert {entry["file"] for entry in result["dataset"]["skipped"]} == {
        f"{BRIGHT}/notes.txt",
        f"{SHOWN_DIM}/notes.txt",
    }
    assert result["dataset"]["classes"] == [BRIGHT, SHOWN_DIM]
    for figure in ("confusion", "curves"):
        assert (place.cwd / f"run/figures/{figure}.png").exists(), finished.out
    run, explained = "--workdir=run", ["--show=grad_cam", f"--images={odd_folder}/dim*/new*", "--out=explained"]
    used = place.launch_in_turn(
        ["--mode=evaluate", run, f"--images={odd_folder}", "--out=e.json"],
        ["--mode=predict", run, f"--images={odd_folder}", "--out=all.csv"],
        ["--mode=predict", run, f"--images={odd_folder}/dim*/*", "--out=dim.csv"],
        ["--mode=explain", run, *explained],
    )
    used.assert_is_done()
    assert json.loads((place.cwd / "e.json").read_text(encoding="utf-8"))["examples"] == images
    assert "passed over: 2 files that are no images" in used.out
    with (place.cwd / "all.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == images
    assert all(row["class"] and row["file"].isprintable() for row in rows)
    with (place.cwd / "dim.csv").open(encoding="utf-8", newline="") as stream:
        assert len(list(csv.DictReader(stream))) == images // 2 + 1, "a pattern takes the text, too"
    checked = place.launch(OWN, f"--config.dataset.root={odd_folder}", "--mode=check", "--out=found")
    checked.assert_is_done()
    report = json.loads((place.cwd / "found/check.json").read_text(encoding="utf-8"))
    assert sum(map(sum, (counts.values() for counts in report["images"].values()))) == images
    for output in (finished, used, checked):
        assert "\x1b[31m" not in output.out + output.err
        assert "Warning" not in output.out + output.err and ".py:" not in output.out + output.err
        assert output.err == ""
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_other_encodings(place, encoding):
    place.cwd.mkdir(parents=True)
    environment = place.environment() | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, LAUNCH, "--help"], env=environment, cwd=place.cwd, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_reader_that_has_gone(place):
    place.cwd.mkdir(parents=True)
    reading, writing = os.pipe()
    os.close(reading)
    for flags in (["--help"], [OWN, "--config.dataset.name=embedded", "--mode=summary"]):
        done = subprocess.run(
            [sys.executable, LAUNCH, *flags], env=place.environment(), cwd=place.cwd, stdout=writing, stderr=-1
        )
        assert (done.returncode, done.stderr) == (141, b"")
    os.close(writing)

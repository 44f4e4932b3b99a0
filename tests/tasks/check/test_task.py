"""`--mode=check`: every planted fault is found under its name, and a clean folder has none."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from vision_transfer.config import checked, default_config, stage, with_stages
from vision_transfer.errors import UserError
from vision_transfer.tasks.check.findings import KINDS
from vision_transfer.tasks.check.task import check

SIZE = 64
# Kind of finding -> the files of each finding of the kind in `faulty_folder`.
EXPECTED = {
    "leak": {
        ("test/cat/leaked.png", "train/cat/0.png"),
        ("train/dog/1.png", "validation/dog/nearly leaked.jpg"),
    },
    "label_conflict": {("train/cat/3.png", "train/dog/conflict.jpg")},
    "duplicate": {("train/dog/2.png", "train/dog/twice.png")},
    "near_duplicate": {
        ("train/cat/3.png", "train/dog/conflict.jpg"),
        ("train/dog/4.png", "train/dog/nearly twice.jpg"),
    },
    "unreadable": {("train/cat/broken.jpg",), ("train/cat/empty.png",)},
    "wrong_extension": {("train/cat/really a png.jpg",)},
    "mode": {
        (f"train/cat/{name}",)
        for name in ("alpha.png", "palette.png", "cmyk.jpg", "sixteen.png", "turned.jpg", "moving.gif")
    },
    "size": {("train/cat/small.png",), ("train/cat/wide.png",)},
}


@pytest.fixture
def found(tmp_path, screen):
    """Checks a folder; its findings as `check.json` has them."""

    def run(root, **changes):
        config = with_stages(default_config(), head=stage())
        config.dataset.root = str(root)
        config.dataset.image_size = SIZE
        config.check.labels = "never"
        for name, value in changes.items():
            config.dataset[name] = value
        place = check(checked(config), tmp_path / "cache", tmp_path / "found", screen)
        return json.loads((place / "check.json").read_text(encoding="utf-8"))

    return run


def files_of(report, kind):
    return {tuple(sorted(finding["files"])) for finding in report["findings"] if finding["kind"] == kind}


def details_of(report, kind):
    return [finding["detail"] for finding in report["findings"] if finding["kind"] == kind]


def test_every_fault_is_found(found, faulty_folder, tmp_path, screen):
    report = found(faulty_folder)
    for kind, files in EXPECTED.items():
        assert files_of(report, kind) == files, kind
    assert details_of(report, "layout") == ["the folder training is beside train and is not read"]
    assert {detail.split(":")[0] for detail in details_of(report, "tiny_class")} == {"bird"}
    assert len(details_of(report, "tiny_class")) == 3
    assert "bird" in details_of(report, "imbalance")[0]
    assert report["labels"]["done"] is False
    # the worst first, and all kinds counted
    kinds = [finding["kind"] for finding in report["findings"]]
    assert kinds == sorted(kinds, key=list(KINDS).index)
    assert report["counts"] == {kind: kinds.count(kind) for kind in KINDS if kind in kinds}
    with Image.open(tmp_path / "found/check.png") as sheet:
        assert sheet.width == 1200
        pixels = np.asarray(sheet)
    assert 0.05 < (pixels < 250).any(axis=2).mean() < 0.9
    said = screen.console.file.getvalue()
    assert said.index("in two splits") < said.index("not a readable image") < said.index("unusual size")
    assert "train/dog/1.png" in said
    assert "near-duplicates, similarity" in said


def test_a_clean_folder_has_no_findings_but_its_small_splits(found, clean_folder, tmp_path):
    report = found(clean_folder)
    assert report["counts"] == {"small_split": 2}
    assert details_of(report, "small_split") == [
        f"12 {split} images, 6 of cat: an accuracy measured on them has a 95 % interval of up to ±0.25; smaller "
        "differences between runs mean nothing"
        for split in ("test", "validation")
    ]
    assert not (tmp_path / "found/check.png").exists()
    assert report["images"] == {
        split: {"cat": count, "dog": count} for split, count in (("train", 12), ("validation", 6), ("test", 6))
    }


def test_a_clean_set_has_no_findings(found, tmp_path, scene, screen):
    images, labels = np.stack([scene(seed, 40, 40) for seed in range(232)]), np.arange(232) % 2
    file = tmp_path / "some.npz"
    np.savez(file, x_train=images[:132], y_train=labels[:132], x_test=images[132:], y_test=labels[132:])
    assert found(file, name="npz")["findings"] == []
    assert "No problems were found" in screen.console.file.getvalue()


def test_an_unsplit_folder_and_a_class_named_like_a_split(found, clean_folder):
    (clean_folder / "train/dog").rename(clean_folder / "train/Testing")
    report = found(clean_folder / "train")
    assert [finding["kind"] for finding in report["findings"]] == ["layout"]
    assert list(report["images"]) == ["train"]


def test_copies_are_found_in_arrays_without_files(found, tmp_path, scene):
    images = np.stack([scene(seed, 40, 40) for seed in range(44)])
    images[30] = images[2]
    labels = np.arange(44) % 2
    file = tmp_path / "some.npz"
    np.savez(file, x_train=images[:30], y_train=labels[:30], x_test=images[30:], y_test=labels[30:])
    report = found(file, name="npz")
    assert files_of(report, "leak") == {("test/0", "train/2")}
    assert report["counts"] == {"leak": 1, "small_split": 1}


def test_dark_files_of_16_bits_are_said_with_the_range_that_reads_them(found, clean_folder, scene):
    """As a run says it, which refuses them; images of another kind among them have no range to give."""
    for number, file in enumerate(sorted(clean_folder.rglob("*.png"))):
        Image.fromarray(scene(number)[..., 0].astype(np.uint16)).save(file)
    (detail,) = details_of(found(clean_folder), "blank")
    assert detail.startswith("a run refuses the data: 48 of 48 images have no contrast")
    assert "--config.dataset.value_range=0,255 reads all" in detail
    assert "blank" not in found(clean_folder, value_range=(0.0, 255.0))["counts"]


def test_many_findings_fit_on_the_sheet(found, clean_folder, tmp_path):
    for number in range(12):
        for copy in range(3):
            shutil.copy(clean_folder / f"train/cat/{number}.png", clean_folder / f"train/cat/{number} copy {copy}.png")
    report = found(clean_folder)
    assert report["counts"]["duplicate"] == 36
    assert (tmp_path / "found/check.png").stat().st_size > 10_000


def test_data_that_cannot_be_checked(found, clean_folder):
    for path in clean_folder.rglob("*.png"):
        path.write_text("no image")
    with pytest.raises(UserError, match=r"pets has no image that decodes \(not an image"):
        found(clean_folder)
    with pytest.raises(UserError, match="there is no folder"):
        found(clean_folder / "nowhere")

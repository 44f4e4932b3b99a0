"""The check's precision and recall on a folder with planted faults of many kinds, each by its file and kind."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from vision_transfer.config import checked, default_config, stage, with_stages
from vision_transfer.tasks.check.task import check

SIZE = 64
# Sound photos among which the faults are planted: enough that no split is small.
COUNTS = {"train": 100, "validation": 50, "test": 50}


@pytest.fixture
def planted(tmp_path, scene):
    """The folder, and the faults in it: kind → files of each finding, or a part of its detail where it has no file."""
    root, seed = tmp_path / "pets", 0
    for split, count in COUNTS.items():
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                Image.fromarray(scene(seed, 48, 64)).save(root / split / name / f"{number}.png")
                seed += 1
    cats, dogs, faults = root / "train/cat", root / "train/dog", {}

    def fault(kind, *files):
        faults.setdefault(kind, set()).add(tuple(sorted(file.relative_to(root).as_posix() for file in files)))
        return files[-1]

    def picture():
        nonlocal seed
        seed += 1
        return Image.fromarray(scene(1000 + seed, 48, 64))

    shutil.copy(cats / "1.png", fault("leak", cats / "1.png", root / "test/cat/same.png"))
    Image.open(dogs / "1.png").save(fault("leak", dogs / "1.png", root / "validation/dog/again.jpg"), quality=90)
    shutil.copy(cats / "2.png", fault("label_conflict", cats / "2.png", dogs / "is a cat.png"))
    fault("duplicate", cats / "2.png", dogs / "is a cat.png")
    shutil.copy(dogs / "3.png", fault("duplicate", dogs / "3.png", dogs / "3 copy.png"))
    Image.open(dogs / "4.png").save(fault("near_duplicate", dogs / "4.png", dogs / "4 small.jpg"), quality=90)
    content = (cats / "5.png").read_bytes()
    fault("unreadable", cats / "cut.png").write_bytes(content[: len(content) // 2])
    fault("unreadable", cats / "page.jpg").write_text("<!DOCTYPE html><html>404")
    fault("unreadable", cats / "empty.jpg").touch()
    fault("unreadable", cats / "notes.txt").write_text("notes")
    Image.new("RGB", (64, 48), (0, 0, 0)).save(fault("blank", cats / "black.png"))
    Image.new("RGB", (64, 48), (255, 255, 255)).save(fault("blank", cats / "white.png"))
    Image.new("RGB", (64, 48), (128, 30, 30)).save(fault("blank", dogs / "red.png"))
    twelve = np.asarray(picture().convert("L")).astype(np.uint16) * 16
    Image.fromarray(twelve).save(fault("blank", dogs / "twelve bits.png"))
    fault("mode", dogs / "twelve bits.png")
    picture().point(lambda level: level // 8).save(fault("dark", dogs / "night.png"))
    levels = np.asarray(picture())
    burnt = np.where(levels > np.quantile(levels, 0.1), 255, levels).astype(np.uint8)
    Image.fromarray(burnt).save(fault("bright", dogs / "overexposed.png"))
    picture().save(fault("wrong_extension", cats / "really png.jpg"), "PNG")
    picture().convert("CMYK").save(fault("mode", cats / "print.jpg"), quality=95)
    picture().quantize(32).save(fault("mode", cats / "palette.png"))
    exif = Image.Exif()
    exif[0x0112] = 6
    picture().save(fault("mode", cats / "turned.jpg"), exif=exif, quality=95)
    exif[0x0112] = 9
    picture().save(cats / "not turned.jpg", exif=exif, quality=95)
    picture().resize((20, 15)).save(fault("size", cats / "tiny.png"))
    picture().resize((400, 48)).save(fault("size", cats / "strip.png"))
    # what is no fault: system files, other ways of writing an image, a photo of few levels
    (cats / "Thumbs.db").write_bytes(b"x")
    (cats / "@eaDir").mkdir()
    shutil.copy(cats / "6.png", cats / "@eaDir/6.png")
    picture().save(cats / "scan.ppm")
    Image.merge("LAB", picture().split()).save(cats / "proof.tif")
    picture().point(lambda level: 100 + level // 6).save(cats / "fog.png")
    # layout
    picture().save(root / "loose.png")
    (root / "extra").mkdir()
    for split, few in (("train", 3), ("validation", 1)):
        (root / split / "bird").mkdir()
        for number in range(few):
            picture().save(root / split / "bird" / f"{number}.png")
    (root / "test/bird").mkdir()
    return root, faults


LAYOUT = {
    "layout": {"the folder extra is beside train", "1 image file in pets outside of the class folders"},
    "empty_class": {"bird: no image in test"},
    "tiny_class": {"bird: 3 in train", "bird: 1 in validation"},
    "small_split": {"102 validation images, 1 of bird"},
    "imbalance": {"training images, bird 3"},
}


def test_planted_faults_are_found_and_nothing_else(planted, tmp_path, screen):
    root, faults = planted
    config = with_stages(default_config(), head=stage())
    config.dataset.root, config.dataset.image_size, config.check.labels = str(root), SIZE, "never"
    place = check(checked(config), tmp_path / "cache", tmp_path / "found", screen)
    report = json.loads((place / "check.json").read_text(encoding="utf-8"))
    right, wrong = set(), []
    for finding in report["findings"]:
        kind, key = finding["kind"], tuple(sorted(finding["files"]))
        if not key:
            key = next((part for part in LAYOUT.get(kind, ()) if part in finding["detail"]), None)
            expected = LAYOUT
        else:
            expected = faults
        if key in expected.get(kind, ()):
            right.add((kind, key))
        else:
            wrong.append((kind, finding["files"], finding["detail"]))
    everything = {(kind, key) for kinds in (faults, LAYOUT) for kind, keys in kinds.items() for key in keys}
    assert len({kind for kind, _ in everything}) >= 16
    # precision and recall are both 1
    assert wrong == []
    assert right == everything

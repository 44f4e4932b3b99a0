"""The page of a run: well-formed, self-contained, escaped, and as complete as the run's files allow."""

import json
import shutil
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest

from vision_transfer.tasks.report.page import write_report
from vision_transfer.tasks.report.stage_section import RULE

VOID = {"meta", "link", "img", "br", "hr", "path", "circle", "rect"}


class Page(HTMLParser):
    """A parsed page: its elements in order, and its text; raises where tags do not match."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.text, self._open = [], "", []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if "style" not in self._open:
            self.text = f"{self.text} {' '.join(data.split())}".strip()

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def page(caches, screen):
    """Writes the report of a run's folder and parses it."""

    def make(folder):
        file = write_report(folder.path, caches, screen)
        assert file == folder.path / "report.html"
        return Page(file.read_text(encoding="utf-8"))

    return make


def test_a_screen_reader_finds_its_way(page, by_hand):
    found = page(by_hand)
    assert found.all("html") == [{"lang": "en"}]
    levels = [int(tag[1]) for tag, _ in found.elements if tag in ("h1", "h2", "h3", "h4")]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in pairwise(levels))
    assert all(image["alt"] for image in found.all("img")) and len(found.all("img")) > 20
    assert all(head.get("scope") in ("col", "row") for head in found.all("th"))
    assert len(found.all("table")) == len(found.all("caption"))
    ids = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for image in (one for one in found.all("svg") if one.get("aria-hidden") != "true"):
        assert image["role"] == "img" and set(image["aria-labelledby"].split()) <= set(ids)
    targets = [link["href"] for link in found.all("a")]
    assert all(target.startswith("#") and target[1:] in ids for target in targets) and len(targets) == 6


def test_it_needs_nothing_else(page, by_hand):
    found = page(by_hand)
    assert not found.all("script") and not found.all("iframe")
    assert all(image["src"].startswith("data:image/") for image in found.all("img"))
    assert [link["href"] for link in found.all("link")] == ["data:,"]
    assert any("default-src 'none'" in meta.get("content", "") for meta in found.all("meta"))
    assert not any(name.startswith("on") for _, attributes in found.elements for name in attributes)


def test_the_page_of_a_finished_run(page, by_hand):
    text = page(by_hand).text
    result = json.loads(by_hand.result_file.read_text())
    assert f"{result['test']['accuracy']:.4f}" in text
    assert "python launch.py --config=x.py" in text
    assert "Over-fitting after about epoch" in text and RULE in text
    assert "Best epoch: 3 of 10" in text
    assert "600 train, 200 validation, 997 test" in text and "random initialisation" in text
    assert "peak during training and validation 500 MB" in text
    assert "No heat maps: " in text  # written by hand, it has no checkpoints


def test_hostile_names_are_text(page, make_run):
    evil = "<script>alert(1)</script>"
    folder = make_run("run", classes=[evil, "b & 'c'"], files=[f'test/{evil}" onerror="x{n}.jpg' for n in range(9)])
    html = write_report_text(page, folder)
    assert "<script" not in html
    found = Page(html)
    assert evil in found.text and "b & 'c'" in found.text
    assert not any("onerror" in attributes for _, attributes in found.elements)


def write_report_text(page, folder):
    page(folder)
    return folder.report_file.read_text(encoding="utf-8")


def test_a_run_that_is_not_finished(page, by_hand):
    by_hand.result_file.unlink()
    by_hand.predictions_file.unlink()
    found = page(by_hand)
    assert "Not finished:" in found.text and "the run is not finished" in found.text
    assert "Best epoch so far: 3 of 10" in found.text
    assert found.all("svg")
    assert "evaluated once, after the last stage" in found.text


def test_a_run_that_has_just_begun(page, by_hand):
    for file in (by_hand.result_file, by_hand.predictions_file, by_hand.metrics_file):
        file.unlink()
    assert "No epoch has ended yet." in page(by_hand).text


@pytest.mark.parametrize("name", ["config.json", "identity.json", "metrics.jsonl", "result.json", "predictions.npz"])
@pytest.mark.parametrize(
    "content", [None, b"", b"[1]", b"\xff\xfe", b'{"stages": 3, "dataset": [], "test": {"accuracy": 1}}']
)
def test_a_page_is_written_whatever_a_file_contains(page, by_hand, name, content):
    path = by_hand.path / name
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    text = page(by_hand).text
    assert "Missing from this page" in text or name == "identity.json"


def test_values_of_other_types_leave_the_rest(page, by_hand):
    result = json.loads(by_hand.result_file.read_text())
    for key, value in [("stages", [{"name": 1}]), ("seconds", "long"), ("parameters", {}), ("memory", [3])]:
        result[key] = value
    result["test"]["confusion"] = [[1, 2]]
    result["dataset"]["classes"] = ["only one"]
    by_hand.result_file.write_text(json.dumps(result))
    text = page(by_hand).text
    assert "was not written by this version, or was edited" in text
    assert "Over-fitting after about epoch" in text


def test_a_config_of_another_version_is_shown(page, by_hand):
    config = json.loads(by_hand.config_file.read_text()) | {"speed": 3}
    by_hand.config_file.write_text(json.dumps(config))
    text = page(by_hand).text
    assert "speed 3" in text and "this version has no such field" in text


def test_without_the_data_only_the_images_are_missing(page, by_hand, tmp_path):
    config = json.loads(by_hand.config_file.read_text())
    config["dataset"] |= {"name": "folder", "root": str(tmp_path / "gone")}
    by_hand.config_file.write_text(json.dumps(config))
    found = page(by_hand)
    assert "No images, since the data is not available: " in found.text
    assert not found.all("img") and "no image" in found.text
    assert "digits/" in found.text and "Expected calibration error" in found.text


def test_data_that_has_changed_is_not_shown(page, by_hand):
    result = json.loads(by_hand.result_file.read_text())
    result["dataset"]["fingerprint"] = "other"
    by_hand.result_file.write_text(json.dumps(result))
    assert "has changed since the run" in page(by_hand).text


def test_no_validation_no_best_epoch(page, make_run, make_epoch):
    folder = make_run("run", epochs=[make_epoch("head", number, 1 / number, None) for number in (1, 2)])
    assert "There is no validation" in page(folder).text


def test_no_finite_validation_loss_no_best_epoch(page, make_run, make_epoch):
    epochs = [make_epoch("head", number, 1 / number, None) | {"validation_accuracy": 0.5} for number in (1, 2)]
    folder = make_run("run", epochs=epochs)
    result = json.loads(folder.result_file.read_text())
    result["stages"][0]["best_epoch"] = 0
    folder.result_file.write_text(json.dumps(result))
    assert "The validation loss of no epoch is finite" in page(folder).text


def test_no_mistakes(page, make_run):
    labels = np.arange(20) % 2
    logits = np.where(np.eye(2)[labels] > 0, 9.0, 0.0).astype(np.float32)
    folder = make_run("run", classes=["a", "b"], files=[f"{n}.jpg" for n in range(20)], logits=logits)
    # the labels of the run by hand are those of the digits
    with np.load(folder.predictions_file) as arrays:
        truth = arrays["labels"]
    folder.write_predictions(np.where(np.eye(2)[truth] > 0, 9.0, 0.0), truth, tuple(f"{n}.jpg" for n in range(20)))
    assert "every test image is classified correctly" in page(folder).text


def test_heat_maps_need_checkpoints(digits_run, tmp_path, caches, screen):
    with_heat = Page(write_report(digits_run, caches, screen, tmp_path / "with.html").read_text())
    assert "Grad-CAM at layer conv2" in with_heat.text
    heat = [image for image in with_heat.all("img") if "heat map" in image["alt"]]
    assert len(heat) == 12 and all(image["src"].startswith("data:image/jpeg") for image in heat)
    copy = tmp_path / "copy"
    shutil.copytree(digits_run, copy)
    shutil.rmtree(copy / "checkpoints")
    without = Page(write_report(copy, caches, screen).read_text())
    assert "No heat maps: " in without.text
    assert len(without.all("img")) == len(with_heat.all("img")) - 12


def test_a_run_writes_its_report_and_its_command(digits_run):
    text = Page((digits_run / "report.html").read_text()).text
    assert "python launch.py --config=digits.py" in text and "A finished run" in text
    memory = json.loads((digits_run / "result.json").read_text())["memory"]
    assert memory["process_peak_bytes"] and all(peak > 10**7 for peak in memory["process_peak_bytes"].values())


def test_a_run_writes_event_files_of_each_stage(digits_run):
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed (extra [tensorboard])")
    for stage in ("whole", "top"):
        for split in ("train", "validation"):
            (file,) = (digits_run / "tensorboard" / stage / split).iterdir()
            assert file.stat().st_size > 100

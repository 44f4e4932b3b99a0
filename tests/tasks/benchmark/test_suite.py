"""The suite: cases in order, memory and time that run out, failures, continuing, and what the files say."""

import csv
import io
import itertools
import json
import time

import pytest

from vision_transfer.config import checked
from vision_transfer.config.files import load_config
from vision_transfer.errors import UserError
from vision_transfer.tasks.benchmark import measure, task
from vision_transfer.tasks.benchmark.cases import depth_cases
from vision_transfer.tasks.benchmark.roofline import case_key, roofline
from vision_transfer.tasks.benchmark.task import benchmark
from vision_transfer.tasks.benchmark.worker import spread

PEAK = {"flops": 1e12, "bandwidth": 1e11, "source": "a data sheet"}


@pytest.fixture
def config():
    return checked(load_config("accelerator:small=True"))


@pytest.fixture
def measured(monkeypatch):
    """Cases that take a second in place of measured ones; the keys of those that were asked for."""
    asked = []

    def measure_case(config, case, cache, trace, earlier, hosts):
        asked.append(case_key(case.identity))
        if measured_case.error:
            raise UserError(measured_case.error)
        record = {**case.facts, "seconds": None, "status": "out of memory", "reason": "RESOURCE_EXHAUSTED"}
        if case.batch > measured_case.fits:
            return record
        return record | {
            **{"status": "measured", "seconds": spread([1.0]), "repeats": [1.0], "images_per_second": case.batch},
            **{"mfu": 0.5, "bandwidth_share": 0.1, "peak": PEAK, "roofline": roofline(1e9, 1e9, PEAK)},
            **{"device": "a chip × 1", "library": "jax", "compile_seconds": 1.0, "program_bytes": 1e9},
            **{"compiler": {"flops": 1e9, "bytes": 1e9}, "device_memory_bytes": 1e9, "peak_memory_bytes": 2e9},
            **{"feed": {"images_per_second": 9.0, "host_to_device_bytes": 1e6}, "joules_per_image": 0.5},
        }

    measured_case = measure_case
    measured_case.fits, measured_case.error, measured_case.asked = 1000, "", asked
    monkeypatch.setattr(measure, "measure_case", measure_case)
    return measured_case


def test_the_whole_suite_fits_every_backbone_and_begins_with_what_tells_most():
    cases = depth_cases(checked(load_config("accelerator")))
    keys = [case_key(case.identity) for case in cases]
    assert len(set(keys)) == len(keys)
    # forward, and images and features of three depths, of which "none" has no features
    assert len(keys) == 4 * 3 * 8 * 6
    assert {(key[1], key[5]) for key in keys[:24]} == {("bfloat16", 64)}
    assert {(key[1], key[5]) for key in keys[24:96]} == {("bfloat16", 32), ("bfloat16", 128), ("tf32", 64)}
    sizes = {case.backbone: case.network.input_shape[0] for case in cases}
    assert sizes == {"vgg16": 224, "resnet50": 224, "efficientnet_lite0": 224, "xception": 299}


def test_the_suite_runs_whole_on_this_machine(tmp_path, screen):
    config = load_config("accelerator:small=True")
    config.benchmark.freeze = ("last_stage",)
    config.benchmark.batches = (2,)
    config.benchmark.trace = True
    folder = benchmark(checked(config), tmp_path / "cache", tmp_path / "run", screen)
    result = json.loads((folder / "benchmark.json").read_text())
    assert [(record["work"], record["source"]) for record in result["measured"]] == [
        ("forward", "images"),
        ("step", "images"),
        ("step", "features"),
    ]
    for record in result["measured"]:
        seconds, peak = record["seconds"], record["peak"]
        assert record["status"] == "measured", record.get("reason")
        assert 0 < seconds["lowest"] <= seconds["first_quartile"] <= seconds["median"] <= seconds["highest"]
        assert seconds["repeats"] == len(record["repeats"]) == 3
        assert record["images_per_second"] == pytest.approx(2 / seconds["median"])
        assert record["mfu"] == pytest.approx(record["table"]["flops"] / seconds["median"] / peak["flops"])
        assert record["roofline"]["seconds"]["products"] == pytest.approx(record["table"]["flops"] / peak["flops"])
        assert record["compile_seconds"] > seconds["median"]
        assert record["peak_memory_bytes"] > 50e6
        assert record["program_bytes"] > 0
        assert record["feed"]["images_per_second"] > 0
    images, features = (record["feed"]["host_to_device_bytes"] for record in result["measured"][1:])
    # pixels of one byte, and labels, ids, rows, weights and a rate of four bytes each
    assert images == pytest.approx(2 * (28 * 28 + 4 * 4) + 4, rel=0.01)
    # outputs of the second block in float32
    assert features == pytest.approx(2 * (5 * 5 * 64 * 4 + 4 * 4) + 4, rel=0.01)
    assert (folder / "depth.png").read_bytes().startswith(b"\x89PNG")
    index = (folder / "trace" / "README.md").read_text(encoding="utf-8")
    assert index.count("\n- `") == 3 and "- `00`: " in index and "xprof" in index
    assert len(list(folder.glob("trace/*/program.hlo.txt"))) == len(list(folder.glob("trace/*/plugins"))) == 3


def test_memory_ends_a_sweep_and_not_the_suite(config, measured, tmp_path, screen):
    measured.fits = 2
    records = measure.measure(config, depth_cases(config), tmp_path, tmp_path, screen)
    statuses = {case_key(record): record["status"] for record in records}
    assert {status for key, status in statuses.items() if key[5] == 2} == {"measured"}
    assert {status for key, status in statuses.items() if key[5] == 4} == {"out of memory"}
    larger = [case for case in depth_cases(config) if case.batch == 4]
    left = [record for record in records if record["batch"] == 4]
    measured.asked.clear()
    known = [{**record, "batch": 3} for record in left]
    again = measure.measure(config, larger, tmp_path, tmp_path, screen, known)
    assert measured.asked == []
    assert {record["status"] for record in again[len(known) :]} == {"not tried"}


def test_the_same_command_continues_after_its_time(config, measured, tmp_path, screen, monkeypatch):
    clock = itertools.count(step=20.0)
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    limited = checked(load_config("accelerator:small=True"))
    object.__setattr__(limited.benchmark, "minutes", 3.0)
    folder, cases = tmp_path / "run", depth_cases(config)
    benchmark(limited, tmp_path, folder, screen)
    result = json.loads((folder / "benchmark.json").read_text())
    first = list(measured.asked)
    assert 0 < len(first) == len(result["measured"]) == len(cases) - result["left"]
    assert "the same command continues" in screen.console.file.getvalue()
    monkeypatch.undo()
    monkeypatch.setattr(measure, "measure_case", measured)
    measured.error = "the chip is on fire"
    benchmark(config, tmp_path, folder, screen)
    failed = json.loads((folder / "benchmark.json").read_text())
    assert failed["left"] == len(cases) - len(first)
    measured.error = ""
    benchmark(config, tmp_path, folder, screen)
    result = json.loads((folder / "benchmark.json").read_text())
    assert [case_key(record) for record in result["measured"]] == [case_key(case.identity) for case in cases]
    assert {record["status"] for record in result["measured"]} == {"measured"}
    assert result["left"] == 0
    with pytest.raises(UserError, match="never reused"):
        benchmark(config, tmp_path, folder, screen)


def test_a_folder_of_another_commit_is_not_continued(config, measured, tmp_path, screen, monkeypatch):
    measured.error = "no chip"
    benchmark(config, tmp_path, tmp_path / "run", screen)
    monkeypatch.setattr(task, "code_digest", lambda also: f"another with {also}")
    with pytest.raises(UserError, match="cases left, of another code_digest"):
        benchmark(config, tmp_path, tmp_path / "run", screen)


def test_the_tables_have_every_case_with_its_figures(config, measured, tmp_path, screen):
    measured.fits = 2
    folder = benchmark(config, tmp_path, tmp_path / "run", screen)
    rows = list(csv.DictReader(io.StringIO((folder / "benchmark.csv").read_text(encoding="utf-8"))))
    cases = depth_cases(config)
    assert len(rows) == len(cases)
    assert {row["status"] for row in rows} == {"measured", "out of memory"}
    one = next(row for row in rows if row["status"] == "measured")
    assert (one["seconds_median"], one["mfu"], one["bound"]) == ("1.0", "0.5", "memory")
    # the device's memory, where it tells it
    assert float(one["peak_memory_bytes"]) == 1e9
    page = (folder / "benchmark.md").read_text(encoding="utf-8")
    assert page.count("\n| mnist_convnet") == len(cases)
    assert page.count("out of memory") == len(cases) // 2

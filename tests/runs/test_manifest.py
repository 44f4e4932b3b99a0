"""A finished run's manifest: any byte that changes is noticed, and what says where files lie may change."""

import json
import os
import shutil

import numpy as np
import pytest

from vision_transfer.config import default_config, read_config
from vision_transfer.errors import UserError
from vision_transfer.runs.folder import RunFolder
from vision_transfer.runs.load import load_run
from vision_transfer.runs.manifest import check_files
from vision_transfer.runs.prepare import RunOptions
from vision_transfer.tasks.report.run_files import NO_MANIFEST, read_run_files
from vision_transfer.tasks.study.plan import PlannedRun
from vision_transfer.tasks.study.runs import read_finished
from vision_transfer.tasks.train.task import train

# A sample by default; the long version changes every kind of file this often in all.
CHANGES = int(os.environ.get("VISION_TRANSFER_CHANGED_BYTES", "60"))
NOT_READ = ("report.html", ".lock")


def files_of(run):
    """Files that something reads: all but the page, the figures and the checkpoints of best epochs."""
    found = (path for path in run.rglob("*") if path.is_file() and path.name not in NOT_READ)
    return sorted(path for path in found if not {"figures", "best"} & set(path.relative_to(run).parts))


def test_a_whole_run_has_one(finished_run):
    check_files(RunFolder(finished_run))
    content = json.loads((finished_run / "manifest.json").read_text())["content"]
    assert content["run"] == json.loads((finished_run / "result.json").read_text())["digest"]
    assert {
        "config.json",
        "identity.json",
        "metrics.jsonl",
        "result.json",
        "predictions.npz",
        "temperature.json",
    } <= set(content["sha256"])
    assert any(name.startswith("checkpoints/head/last/") for name in content["sha256"])


def test_a_changed_byte_anywhere_is_noticed(finished_run, tmp_path, run_caches, screen):
    copy = shutil.copytree(finished_run, tmp_path / "copy")
    expected = load_run(copy, run_caches, screen)
    files = files_of(copy)
    unnoticed = []
    for number in range(CHANGES):
        random = np.random.default_rng(number)
        file = files[number % len(files)]
        whole = file.read_bytes()
        place, bit = int(random.integers(len(whole))), 1 << int(random.integers(8))
        file.write_bytes(bytes([*whole[:place], whole[place] ^ bit, *whole[place + 1 :]]))
        try:
            found = load_run(copy, run_caches, screen)
        except UserError as message:
            assert str(copy) in str(message)
        else:
            # Only a place of a file, or white space, of config.json.
            same = file.name == "config.json" and found.result == expected.result
            unnoticed += [] if same else [(file, place)]
        file.write_bytes(whole)
    assert unnoticed == []


@pytest.mark.parametrize(
    ("file", "before", "after"),
    [
        ("config.json", '"image_size": 9', '"image_size": 8'),
        ("config.json", '"preprocessing": "rescale"', '"preprocessing": "raw"'),
        ("result.json", '"bright"', '"brighter"'),
        ("temperature.json", '"temperature": 1.0', '"temperature": 2.0'),
        ("metrics.jsonl", '"epoch": 3', '"epoch": 9'),
        ("identity.json", '"device": "', '"device": "tpu '),
    ],
)
def test_an_edited_value_is_named(finished_run, tmp_path, run_caches, screen, file, before, after):
    copy = shutil.copytree(finished_run, tmp_path / "copy")
    text = (copy / file).read_text()
    assert before in text
    (copy / file).write_text(text.replace(before, after, 1))
    with pytest.raises(UserError, match=rf"{file}: is damaged or was edited.*remove its result\.json"):
        load_run(copy, run_caches, screen)


def test_the_places_of_files_may_change(finished_run, tmp_path, run_caches, screen):
    copy = shutil.copytree(finished_run, tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text())
    config["dataset"]["root"] = str(tmp_path / "moved")
    (copy / "config.json").write_text(json.dumps(config))
    assert load_run(copy, run_caches, screen).config.dataset.root == str(tmp_path / "moved")


def test_a_checkpoint_that_was_added_is_refused(finished_run, tmp_path, run_caches, screen):
    copy = shutil.copytree(finished_run, tmp_path / "copy")
    (last,) = (copy / "checkpoints" / "head" / "last").iterdir()
    shutil.copytree(last, last.with_name("999999999"))
    with pytest.raises(UserError, match=r"999999999.*is not a file of this run"):
        load_run(copy, run_caches, screen)


def test_a_run_without_its_manifest_is_refused_and_a_page_says_so(copied_run, run_caches, screen):
    (copied_run / "manifest.json").unlink()
    readers = {
        "predict, evaluate, explain, export, init_from": lambda: load_run(copied_run, run_caches, screen),
        "the run's command": lambda: train(read_config(copied_run / "config.json"), options, screen),
        "studies": lambda: read_finished(PlannedRun("run", default_config(), {}), copied_run, None),
    }
    options = RunOptions(copied_run, run_caches)
    for reader, read in readers.items():
        with pytest.raises(UserError, match=r"manifest\.json: is missing\. Bring back"):
            pytest.fail(f"{reader}: {read()}")
    assert read_run_files(copied_run).missing == (NO_MANIFEST,)


@pytest.mark.parametrize("part", ["figures", "checkpoints", "predictions.npz"])
def test_a_part_that_is_a_link_out_of_the_folder_is_refused(copied_run, tmp_path, run_caches, screen, part):
    shutil.move(copied_run / part, tmp_path / "elsewhere")
    (copied_run / part).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=f"{part}: is a link to .*elsewhere, outside"):
        load_run(copied_run, run_caches, screen)

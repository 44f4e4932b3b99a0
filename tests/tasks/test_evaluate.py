"""`--mode=evaluate`: on the run's own test split and on class folders."""

import json

import pytest

from vision_transfer.errors import UserError
from vision_transfer.tasks.evaluate import evaluate


def test_the_runs_own_test_split_gives_the_metrics_of_the_run(finished_run, run_caches, screen, tmp_path):
    evaluate([finished_run], None, None, str(tmp_path / "out.json"), run_caches, screen)
    found = json.loads((tmp_path / "out.json").read_text())
    result = json.loads((finished_run / "result.json").read_text())
    for name in ("accuracy", "loss", "accuracy_ci95", "confusion", "examples"):
        assert found[name] == result["test"][name]
    assert "In result.json:" in screen.console.file.getvalue()


def test_a_folder_of_class_folders(finished_run, class_folders, run_caches, screen, tmp_path):
    (tmp_path / "dark").symlink_to(class_folders / "test" / "dark")
    evaluate([finished_run], str(tmp_path), None, str(tmp_path / "out.json"), run_caches, screen)
    found = json.loads((tmp_path / "out.json").read_text())
    result = json.loads((finished_run / "result.json").read_text())
    assert found["confusion"][1] == result["test"]["confusion"][1]
    assert found["examples"] == 7
    assert found["per_class"][0]["recall"] is None


def test_other_classes_are_refused(finished_run, run_caches, screen, tmp_path):
    (tmp_path / "wolves").mkdir()
    with pytest.raises(UserError, match=r"wolves.*bright, dark"):
        evaluate([finished_run], str(tmp_path), None, None, run_caches, screen)

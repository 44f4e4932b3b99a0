"""`--mode=evaluate`: on the run's own test split and on class folders."""

import json
from dataclasses import replace

import numpy as np
import pytest

from vision_transfer.config import default_config
from vision_transfer.errors import UserError
from vision_transfer.predict import Predictor
from vision_transfer.tasks.evaluate import _averaged, _Labelled, evaluate


def test_the_runs_own_test_split_gives_the_metrics_of_the_run(finished_run, run_caches, screen, tmp_path):
    evaluate([finished_run], None, None, tmp_path / "out.json", run_caches, screen)
    found = json.loads((tmp_path / "out.json").read_text())
    result = json.loads((finished_run / "result.json").read_text())
    for name in ("accuracy", "loss", "accuracy_ci95", "confusion", "examples"):
        assert found[name] == result["test"][name]
    assert "In result.json:" in screen.console.file.getvalue()


def test_a_folder_of_class_folders(finished_run, class_folders, run_caches, screen, tmp_path):
    (tmp_path / "dark").symlink_to(class_folders / "test" / "dark")
    evaluate([finished_run], str(tmp_path), None, tmp_path / "out.json", run_caches, screen)
    found = json.loads((tmp_path / "out.json").read_text())
    result = json.loads((finished_run / "result.json").read_text())
    assert found["confusion"][1] == result["test"]["confusion"][1]
    assert found["examples"] == 7
    assert found["per_class"][0]["recall"] is None


def test_other_classes_are_refused(finished_run, run_caches, screen, tmp_path):
    (tmp_path / "wolves").mkdir()
    with pytest.raises(UserError, match=r"wolves.*bright, dark"):
        evaluate([finished_run], str(tmp_path), None, None, run_caches, screen)


def test_runs_are_averaged_on_the_same_images_only(finished_run, run_caches):
    """Two folds, or two splits, of the same classes have equal labels."""
    members, labels = [Predictor.load(finished_run, run_caches)] * 2, np.array([0, 1])
    first = _Labelled("test", ("data", "a.png", "b.png"), np.zeros((2, 1)), labels, ())
    assert _averaged(["a", "b"], members, [first, first]).images == first.images
    with pytest.raises(UserError, match="the test images of b are not those of a"):
        _averaged(["a", "b"], members, [first, replace(first, images=("data", "c.png", "d.png"))])
    # as with another split_seed, where the data has a test split of its own
    seen = replace(first, pixels="digest")
    assert _averaged(["a", "b"], members, [seen, replace(seen, images=("otherwise divided", "a.png", "b.png"))])


def test_images_and_a_config_are_not_both_evaluated(finished_run, run_caches, screen, tmp_path):
    with pytest.raises(UserError, match="give one of them"):
        evaluate([finished_run], str(tmp_path), default_config(), None, run_caches, screen)

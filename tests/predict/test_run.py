"""`Run` and `results`: a run's files as tables, equal to what the run wrote and to what `Predictor` gives."""

import json
import shutil

import numpy as np
import pytest
from sklearn.metrics import accuracy_score

from vision_transfer.errors import UserError
from vision_transfer.predict import Predictor
from vision_transfer.predict.run import Run, results


def test_metrics_are_the_lines_that_the_run_wrote(finished_run):
    lines = [json.loads(line) for line in (finished_run / "metrics.jsonl").read_text().splitlines()]
    table = Run(finished_run).metrics
    assert table.to_dict("records") == lines
    assert set(table.stage) == {"head"} and list(table.epoch) == [1, 2, 3, 4, 5, 6]


def test_predictions_are_those_of_the_predictor_and_of_the_test(finished_run, run_caches, class_folders):
    run = Run(str(finished_run))
    table = run.predictions
    assert accuracy_score(table.label, table.predicted) == run.result["test"]["accuracy"] == table.correct.mean()
    own = Predictor.load(finished_run, run_caches)([class_folders / file for file in table.file])
    assert [one.class_name for one in own] == list(table.predicted)
    np.testing.assert_array_equal([one.probability for one in own], table.probability)
    columns = [f"p({name})" for name in run.result["dataset"]["classes"]]
    np.testing.assert_array_equal([one.probabilities for one in own], table[columns])


def test_variables_are_those_that_were_tested(finished_run, run_caches, monkeypatch):
    monkeypatch.setenv("VISION_TRANSFER_CACHE", str(run_caches))
    run, predictor = Run(finished_run), Predictor.load(finished_run, run_caches)
    assert run.network == predictor.run.network
    assert run.variables["params"].keys() == predictor.run.variables["params"].keys()


def test_results_have_a_row_for_each_finished_run(finished_run, tmp_path):
    for name in ("a", "b", "c [1]"):
        shutil.copytree(finished_run, tmp_path / name)
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "b" / "result.json").unlink()
    table = results(tmp_path / "*")
    assert [path.rpartition("/")[2] for path in table.run] == ["a", "c [1]"]
    assert set(table.test_accuracy) == {Run(finished_run).result["test"]["accuracy"]}
    assert set(table["stages.head.epochs"]) == {6} and set(table["dataset.image_size"]) == {9}
    assert len(results([tmp_path / "a", tmp_path / "c [1]"])) == 2
    with pytest.raises(UserError, match="no finished run"):
        results(tmp_path / "nothing*")


def test_a_changed_file_and_an_unfinished_run_are_messages(finished_run, tmp_path):
    changed = shutil.copytree(finished_run, tmp_path / "changed")
    file = changed / "result.json"
    file.write_text(file.read_text().replace('"accuracy": 0.', '"accuracy": 0.9', 1))
    with pytest.raises(UserError, match=r"result\.json"):
        results(changed)
    file.unlink()
    with pytest.raises(UserError, match="not finished"):
        _ = Run(changed).result
    with pytest.raises(UserError, match="not the folder of a run"):
        _ = Run(tmp_path / "elsewhere").result

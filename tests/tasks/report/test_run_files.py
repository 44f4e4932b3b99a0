"""Reading a run's folder: every file that can be read is used, every other one is listed."""

import json

import numpy as np
import pytest

from vision_transfer.errors import UserError
from vision_transfer.tasks.report.run_files import NO_MANIFEST, Predictions, number, read_run_files


def test_a_whole_run_misses_nothing(by_hand, seal):
    seal(by_hand.path)
    run = read_run_files(by_hand.path)
    assert run.missing == () and run.finished
    assert run.name == "by_hand" and len(run.classes) == 10 and len(run.epochs) == 10
    assert run.predictions is not None and run.predictions.probabilities.shape == (997, 10)


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("config.json", None, "config.json, the configuration, is missing"),
        ("config.json", "{", "config.json, the configuration, cannot be read"),
        ("identity.json", "[]", "identity.json, the versions and the device, is not a JSON object"),
        ("metrics.jsonl", None, "no epoch has ended yet"),
        ("metrics.jsonl", '{"stage": "head", "epoch": 1}\nnonsense\n[]\n', "2 of 3 lines cannot be read"),
        ("result.json", None, "not finished"),
        ("result.json", "\x00", "result.json, the result, cannot be read"),
        ("predictions.npz", None, "no images of mistakes"),
        ("predictions.npz", "no zip", "predictions.npz cannot be read"),
    ],
)
def test_what_is_missing_is_listed_and_the_rest_is_read(by_hand, file, content, said):
    path = by_hand.path / file
    caution = [] if (file, content) == ("result.json", None) else [NO_MANIFEST]
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    run = read_run_files(by_hand.path)
    (sentence,) = (sentence for sentence in run.missing if sentence not in caution)
    assert said in sentence and len(run.missing) == 1 + len(caution)
    assert run.config or file == "config.json"
    assert run.epochs or file == "metrics.jsonl"


def test_predictions_that_do_not_fit_together_are_not_used(by_hand):
    by_hand.write_predictions(np.zeros((3, 10), np.float32), np.array([0, 1]), ("a", "b", "c"))
    assert "do not fit together" in read_run_files(by_hand.path).missing[-1]
    by_hand.write_predictions(np.full((2, 10), np.nan, np.float32), np.array([0, 1]), ("a", "b"))
    assert "not logits" in read_run_files(by_hand.path).missing[-1]
    by_hand.write_predictions(np.zeros((2, 10), np.float32), np.array([0, 10]), ("a", "b"))
    assert "not labels" in read_run_files(by_hand.path).missing[-1]


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        read_run_files(tmp_path / "nowhere")
    (tmp_path / "result.json").write_text("{}")
    with pytest.raises(UserError, match="is not a run's folder"):
        read_run_files(tmp_path)


def test_classes_without_a_result_are_numbers(by_hand):
    folder = by_hand
    result = json.loads(folder.result_file.read_text())
    del result["dataset"]
    folder.result_file.write_text(json.dumps(result))
    assert read_run_files(folder.path).classes == tuple(map(str, range(10)))


def test_margin_tells_apart_what_rounding_makes_certain():
    logits = np.array([[50.0, 0.0], [80.0, 0.0], [0.0, 1.0]])
    predictions = Predictions(logits - np.logaddexp(*logits.T)[:, None], np.array([1, 1, 1]), ("a", "b", "c"))
    assert predictions.confidence[0] == predictions.confidence[1] == 1
    np.testing.assert_allclose(predictions.margin, [50, 80, 1])
    assert predictions.right.tolist() == [False, False, True]


@pytest.mark.parametrize(("value", "expected"), [(1, 1.0), (0.5, 0.5), (None, None), ("3", None), (True, None)])
def test_numbers(value, expected):
    assert number(value) == expected

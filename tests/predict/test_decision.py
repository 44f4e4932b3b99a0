"""Decisions: chosen on validation, kept in the run, and the same everywhere; bad wishes end in one message."""

import csv
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from vision_transfer.config import read_config
from vision_transfer.config.task_schema import DecisionConfig
from vision_transfer.errors import UserError
from vision_transfer.metrics.decision import ABOVE_ALL
from vision_transfer.predict import Predictor
from vision_transfer.predict.decision import (
    check_decision,
    chosen_decision,
    decide,
    is_asked_for,
    kept_decision,
    meaning,
    write_decision,
)
from vision_transfer.predict.run import Run
from vision_transfer.predict.temperature import probabilities
from vision_transfer.runs.folder import RunFolder
from vision_transfer.runs.manifest import check_files
from vision_transfer.runs.prepare import RunOptions
from vision_transfer.tasks.evaluate import evaluate
from vision_transfer.tasks.predict import predict
from vision_transfer.tasks.train import task
from vision_transfer.tasks.train.task import train

PAIR = ("cat", "dog")


def drawn(seed, examples=200):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, examples)
    return rng.normal(2 * labels - 1, 2)[:, None], labels


@pytest.mark.parametrize("positive", PAIR)
def test_validation_has_the_recall_wanted_and_test_is_only_reported(positive):
    config = DecisionConfig(least_recall=0.95, positive=positive)
    found = chosen_decision(config, PAIR, 1.0, drawn(0), drawn(1))
    outcome = found.validation
    assert outcome.true_positives >= 0.95 * (outcome.true_positives + outcome.false_negatives)
    assert found.threshold == chosen_decision(config, PAIR, 1.0, drawn(0), None).threshold
    label = PAIR.index(positive)
    decided = np.array(decide(found, PAIR, probabilities(drawn(1)[0])))
    assert found.test.true_positives == np.sum((decided == positive) & (drawn(1)[1] == label))
    assert found.test.right == np.sum(decided == np.array(PAIR)[drawn(1)[1]])


@pytest.mark.parametrize("config", [DecisionConfig(least_recall=0.9), DecisionConfig(abstain_risk=0.1)])
def test_the_threshold_is_of_calibrated_probabilities_so_a_temperature_changes_no_decision(config):
    found = [chosen_decision(config, PAIR, temperature, drawn(0), None) for temperature in (1.0, 3.0)]
    assert found[0].threshold != found[1].threshold
    cold, hot = (decide(one, PAIR, probabilities(drawn(0)[0], one.temperature)) for one in found)
    assert cold == hot


@pytest.mark.parametrize("config", [DecisionConfig(least_recall=1), DecisionConfig(abstain_risk=0)])
def test_the_threshold_in_words_decides_as_the_threshold(config):
    """Also one of 0.99997 or 0.00003, which four decimals turn into 1 and 0."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400)
    logits = (12 * rng.normal(2 * labels - 1, 0.5))[:, None]
    found = chosen_decision(config, PAIR, 1.0, (logits, labels), None)
    said = float(re.search(r"at least (\S+),", meaning(found))[1])
    assert 0 < said < 1 and (said > 0.9999 or said < 1e-4)
    shares = probabilities(logits).astype(np.float32)
    assert decide(replace(found, threshold=said), PAIR, shares) == decide(found, PAIR, probabilities(logits))
    assert meaning(replace(found, threshold=ABOVE_ALL)).endswith("in all cases")


def test_a_run_keeps_a_decision_that_all_follow(copied_run, seal, class_folders, run_caches, screen, tmp_path):
    classes = json.loads((copied_run / "result.json").read_text())["dataset"]["classes"]
    folder = RunFolder(copied_run)
    made = write_decision(folder, DecisionConfig(abstain_risk=0.3), classes)
    with pytest.raises(UserError, match=r"decision\.json: is not a file of this run"):
        Predictor.load(copied_run, run_caches, screen)
    seal(copied_run)
    assert kept_decision(folder) == made
    assert not is_asked_for(DecisionConfig(abstain_risk=0.3), made, classes)
    assert is_asked_for(DecisionConfig(abstain_risk=0.2), made, classes)
    evaluate([copied_run], None, None, tmp_path / "out.json", run_caches, screen)
    found = json.loads((tmp_path / "out.json").read_text())["decision"]
    assert (found["threshold"], found["answered"], found["right"]) == (
        made.threshold,
        made.test.answered,
        made.test.right,
    )
    predict([copied_run], str(class_folders / "test"), str(tmp_path / "out.csv"), run_caches, screen)
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sum(row["decision"] != "abstain" for row in rows) == made.test.answered
    assert list(rows[0])[-1] == "decision"
    assert (Run(copied_run).predictions.decision != "abstain").sum() == made.test.answered


def test_the_command_of_a_finished_run_chooses_a_decision_without_training(copied_run, run_caches, screen, monkeypatch):
    def refused(*_):
        raise UserError("the lowest risk is higher.")

    config = replace(read_config(copied_run / "config.json"), decision=DecisionConfig(abstain_risk=0.3))
    before = [(copied_run / name).read_bytes() for name in ("result.json", "metrics.jsonl", "predictions.npz")]
    train(config, RunOptions(copied_run, run_caches, reuse=True), screen)
    assert [(copied_run / name).read_bytes() for name in ("result.json", "metrics.jsonl", "predictions.npz")] == before
    check_files(RunFolder(copied_run))
    assert kept_decision(RunFolder(copied_run)).wanted == (0.3,)
    impossible = replace(config, decision=DecisionConfig(abstain_risk=0.0))
    monkeypatch.setattr(task, "write_decision", refused)
    train(impossible, RunOptions(copied_run, run_caches), screen)
    assert "The run keeps the earlier one: a class where" in " ".join(screen.console.file.getvalue().split())
    with pytest.raises(UserError, match=r"is a threshold for two classes, and the data has 3"):
        train(replace(config, decision=DecisionConfig(least_recall=0.9)), RunOptions(copied_run, run_caches), screen)


@pytest.mark.parametrize(
    ("config", "classes", "labels", "message"),
    [
        (DecisionConfig(cost=(1.0, 5.0)), PAIR, [], "no validation images"),
        (DecisionConfig(cost=(1.0, 5.0)), ("a", "b", "c"), [0, 1, 2], "abstain_risk works for any number"),
        (DecisionConfig(least_recall=0.9, positive="cow"), PAIR, [0, 1], "allowed are cat, dog"),
        (DecisionConfig(abstain_risk=0.1), ("abstain", "dog"), [0, 1], "rename"),
        (DecisionConfig(cost=(1.0, 5.0)), PAIR, [0, 0], "validation, which has no images of dog"),
        (DecisionConfig(least_precision=0.9), PAIR, [1, 1], "validation, which has no images of cat"),
    ],
)
def test_what_cannot_be_chosen_is_refused_before_training(config, classes, labels, message):
    with pytest.raises(UserError, match=message):
        check_decision(config, classes, np.array(labels))


@pytest.mark.parametrize(
    ("config", "labels", "message"),
    [
        (DecisionConfig(least_precision=0.9), [1, 1, 0], "the highest precision on validation is 0.6667"),
        (DecisionConfig(abstain_risk=0.1), [1, 1, 0], "the lowest risk on validation at any coverage is 0.3333"),
    ],
)
def test_what_validation_does_not_allow_is_named_with_the_best_that_it_does(config, labels, message):
    logits = np.array([[1.0], [2.0], [3.0]])
    with pytest.raises(UserError, match=message):
        chosen_decision(config, PAIR, 1.0, (logits, np.array(labels)), None)


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "decision.json").write_text('{"threshold": 0.5}')
    with pytest.raises(UserError, match=r"decision\.json is damaged"):
        kept_decision(RunFolder(tmp_path))

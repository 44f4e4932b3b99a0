"""Several runs as one, on a run and the same run with other views, whose probabilities differ."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import log_loss

from vision_transfer.errors import UserError
from vision_transfer.metrics.classification import evaluate_test
from vision_transfer.predict import Predictor
from vision_transfer.predict.several import averaged_logits, load_several, stream_of
from vision_transfer.tasks.evaluate import evaluate


@pytest.fixture(scope="module")
def members(finished_run, run_caches):
    return (Predictor.load(finished_run, run_caches), Predictor.load(finished_run, run_caches, views="flip"))


def test_probabilities_are_the_mean_and_errors_stay(members, class_folders, tmp_path):
    (tmp_path / "text.jpg").write_text("no image")
    files = [*sorted((class_folders / "test").rglob("*.png"))[:9], tmp_path / "text.jpg"]
    # lists of 16 and of 24 files have a common multiple
    wider = (members[0], replace(members[1], batch_size=members[1].batch_size * 3 // 2))
    for several in (members, wider):
        found = [prediction for chunk in stream_of(several, files) for prediction in chunk]
        alone = [member(files) for member in several]
        assert [one.file for one in found] == list(map(str, files))
        for own, *others in zip(found[:-1], *(one[:-1] for one in alone), strict=True):
            mean = np.mean([other.probabilities for other in others], axis=0)
            np.testing.assert_array_equal(own.probabilities, mean)
            assert own.class_name == members[0].classes[int(mean.argmax())] and own.probability == mean.max()
        assert "not an image" in found[-1].error


@pytest.mark.parametrize("outputs", [1, 3])
def test_logits_have_the_mean_probabilities(members, outputs):
    random = np.random.default_rng(0)
    logits, labels = random.normal(0, 3, (2, 50, outputs)), random.integers(0, max(outputs, 2), 50)
    wide = np.concatenate([np.zeros((2, 50, 1)), logits], 2) if outputs == 1 else logits
    scaled = wide / np.array([member.temperature for member in members])[:, None, None]
    mean = softmax(scaled, axis=-1).mean(axis=0)
    result = evaluate_test(averaged_logits(members, list(logits)), labels)
    assert result.accuracy == np.mean(mean.argmax(axis=1) == labels)
    assert result.loss == pytest.approx(log_loss(labels, mean), rel=1e-9)
    certain = averaged_logits(members, [1e6 * values for values in logits])
    assert np.isfinite(evaluate_test(certain, labels).loss)


def test_the_metrics_of_a_run_given_twice_are_its_own(finished_run, run_caches, screen, tmp_path):
    evaluate([finished_run, finished_run], None, None, tmp_path / "out.json", run_caches, screen)
    found, own = json.loads((tmp_path / "out.json").read_text()), json.loads((finished_run / "result.json").read_text())
    assert found["confusion"] == own["test"]["confusion"]
    assert [row["accuracy"] for row in found["runs"]] == [own["test"]["accuracy"]] * 2
    assert found["loss"] == pytest.approx(found["runs"][0]["loss"], rel=1e-6)
    assert "mean of 2 runs" in screen.console.file.getvalue()


def test_other_classes_are_refused(finished_run, copied_run, run_caches, screen, seal):
    result = json.loads((copied_run / "result.json").read_text())
    result["dataset"]["classes"].reverse()
    (copied_run / "result.json").write_text(json.dumps(result))
    seal(copied_run)
    with pytest.raises(UserError, match="only runs of the same classes"):
        load_several([finished_run, copied_run], run_caches, screen)

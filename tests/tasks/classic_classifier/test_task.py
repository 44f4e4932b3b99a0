"""The task `classic_classifier`: a run folder like any other, whose head scikit-learn fitted on pooled features."""

import io
import json

import numpy as np
import pytest
from rich.console import Console
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from vision_transfer.config import checked, default_config, stage, with_stages
from vision_transfer.data.augmentation.augment import BankRows
from vision_transfer.data.load import load_dataset
from vision_transfer.errors import UserError
from vision_transfer.metrics.classification import wilson_interval
from vision_transfer.models.inference import infer
from vision_transfer.runs.load import load_run
from vision_transfer.runs.prepare import RunOptions, prepare
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.devices import local_mesh
from vision_transfer.tasks.classic_classifier.fit import candidates
from vision_transfer.tasks.classic_classifier.task import classify
from vision_transfer.tasks.train.messages import suggestions
from vision_transfer.tasks.train.task import train

C_VALUES = (0.01, 0.1, 1.0)
ONE = {"classifier.c_values": (0.1,)}


def make_config(**changes):
    config = default_config()
    config.task = "classic_classifier"
    config.dataset.name = "embedded"
    config.dataset.image_size = 20
    config.dataset.channels = 1
    config.dataset.train_examples = 200
    config.model.backbone = "mnist_convnet"
    config.model.weights = "random"
    config.model.pooling = "average"
    config.model.hidden = ()
    config.model.dropout = 0.0
    config.log.report = False
    config.classifier.c_values = C_VALUES
    config.eval_batch_size = 64
    with_stages(config, classifier=stage(freeze="all", epochs=1))
    config.update_from_flattened_dict(changes)
    return checked(config)


@pytest.fixture(scope="module")
def caches(tmp_path_factory):
    return tmp_path_factory.mktemp("caches")


def quiet():
    return Screen(Console(file=io.StringIO(), width=200))


@pytest.fixture
def fitted(tmp_path, caches, screen):
    return lambda **changes: classify(make_config(**changes), RunOptions(tmp_path / "run", caches), screen)


@pytest.fixture(scope="module")
def small_run(tmp_path_factory, caches):
    """A run that tries one value of C."""
    options = RunOptions(tmp_path_factory.mktemp("small") / "run", caches)
    return options, classify(make_config(**ONE), options, quiet())


def test_the_result_agrees_with_scikit_learn_on_the_same_features(fitted, caches, screen):
    folder = fitted()
    run, result = load_run(folder.path, caches, screen), folder.result()
    data = load_dataset(run.config.dataset, cache_dir=caches, screen=screen)
    pooled = {
        name: infer(
            run.network,
            run.variables,
            getattr(data, name).images,
            local_mesh(),
            batch_size=64,
            stop="global_average_pooling2d",
        ).astype(np.float64)
        for name in ("train", "validation", "test")
    }
    scores, models = [], []
    for c in C_VALUES:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=5000))
        models.append(model.fit(pooled["train"], data.train.labels))
        scores.append(model.score(pooled["validation"], data.validation.labels))
    best = int(np.argmax(scores))
    assert (result["classifier"]["c"], result["classifier"]["layer"]) == (C_VALUES[best], "conv3")
    assert result["stages"][0]["validation"]["accuracy"] == pytest.approx(scores[best])
    expected = models[best].decision_function(pooled["test"])
    with np.load(folder.predictions_file) as predictions:
        np.testing.assert_allclose(predictions["logits"], expected, atol=1e-3 * np.abs(expected).max())
    right = round(result["test"]["accuracy"] * len(data.test))
    assert abs(right - models[best].score(pooled["test"], data.test.labels) * len(data.test)) <= 1
    assert result["test"]["accuracy_ci95"] == pytest.approx(wilson_interval(right, len(data.test)))


@pytest.mark.parametrize("budget", [None, 0.0], ids=["cached", "from the images"])
def test_with_augmentation_it_is_fitted_on_the_variants_of_a_bank(fitted, caches, screen, budget):
    changes = {"augment.preset": "keras_layers", "augment.width_shift": 0.2, "augment.bank": 2}
    folder = fitted(**ONE | changes | {"features.budget_gb": budget})
    run = load_run(folder.path, caches, screen)
    train = load_dataset(run.config.dataset, cache_dir=caches, screen=screen).train
    features = [
        infer(run.network, run.variables, images, local_mesh(), batch_size=64, stop="global_average_pooling2d")
        for images in (BankRows(train.images, train.example_ids, run.config.augment, variant) for variant in range(2))
    ]
    assert not np.allclose(*features)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=5000))
    model.fit(np.concatenate(features).astype(np.float64), np.tile(train.labels, 2))
    standardiser, classifier = model
    with np.load(folder.path / "classifier.npz", allow_pickle=False) as coefficients:
        expected = classifier.coef_.T / standardiser.scale_[:, None]
        np.testing.assert_allclose(coefficients["kernel"], expected, atol=1e-2 * np.abs(expected).max())


def test_a_stage_without_augmentation_is_fitted_on_the_images_themselves(fitted, small_run):
    varied = {"augment.preset": "keras_layers", "augment.width_shift": 0.2, "stages.classifier.augment": False}
    kernels = []
    for folder in (small_run[1], fitted(**ONE | varied)):
        with np.load(folder.path / "classifier.npz", allow_pickle=False) as coefficients:
            kernels.append(coefficients["kernel"])
    np.testing.assert_array_equal(*kernels)


@pytest.mark.parametrize(("kind", "layer"), [("svm", "head_logits"), ("pairwise", "head_pairs")])
def test_a_loaded_run_predicts_what_was_tested(fitted, caches, screen, kind, layer):
    folder = fitted(**{"classifier.kind": kind, "classifier.c_values": (0.01,)})
    run = load_run(folder.path, caches, screen)
    test = load_dataset(run.config.dataset, cache_dir=caches, screen=screen).test
    logits = infer(run.network, run.variables, test.images, local_mesh(), batch_size=64)
    with (
        np.load(folder.predictions_file, allow_pickle=False) as predictions,
        np.load(folder.path / "classifier.npz", allow_pickle=False) as coefficients,
    ):
        np.testing.assert_allclose(logits, predictions["logits"], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(run.variables["params"][layer]["kernel"], coefficients["kernel"], rtol=1e-6)
        assert tuple(coefficients["classes"]) == run.classes


def test_two_classes_are_one_pair_whose_classifier_is_a_logistic_regression(fitted, tmp_path):
    labels = np.arange(90) % 2
    images = np.random.default_rng(0).integers(0, 120, (90, 20, 20)) + 100 * labels[:, None, None]
    split = {"x": images.astype(np.uint8), "y": labels}
    splits = {f"{name}_{part}": values for part in ("train", "test") for name, values in split.items()}
    np.savez(tmp_path / "two.npz", **splits)
    two = {"dataset.name": "npz", "dataset.root": str(tmp_path / "two.npz"), "dataset.train_examples": None}
    result = fitted(**ONE | two | {"classifier.kind": "pairwise"}).result()
    assert (result["classifier"]["kind"], result["parameters"]["trainable"]) == ("logistic_regression", 65)
    assert result["test"]["accuracy"] > 0.9


def test_the_result_has_the_fields_of_a_training_run(small_run, tmp_path, caches, screen):
    own = small_run[1].result()
    trained = train(make_config(task="train"), RunOptions(tmp_path / "trained", caches), screen).result()
    assert set(own) == {*trained, "classifier"}
    for section in ("dataset", "weights", "parameters", "test", "seconds"):
        assert set(own[section]) == set(trained[section])
    assert set(own["stages"][0]) == set(trained["stages"][0])
    assert own["parameters"] == trained["parameters"]
    assert small_run[1].confusion_figure.read_bytes().startswith(b"\x89PNG")


def test_a_finished_classifier_is_found_and_not_fitted_again(small_run, screen):
    options, folder = small_run
    written = folder.result_file.stat().st_mtime_ns
    assert classify(make_config(**ONE), options, screen) == folder
    assert folder.result_file.stat().st_mtime_ns == written


def test_without_the_cache_the_features_are_the_same(small_run, fitted):
    direct = fitted(**ONE, **{"features.cache": False})
    with np.load(small_run[1].predictions_file) as first, np.load(direct.predictions_file) as second:
        np.testing.assert_allclose(first["logits"], second["logits"], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("balance", ["none", "class_weights"])
def test_class_weights_reach_the_fit(fitted, monkeypatch, balance):
    asked = []

    def spy(*arguments, balanced, **others):
        asked.append(balanced)
        return candidates(*arguments, balanced=balanced, **others)

    monkeypatch.setattr("vision_transfer.tasks.classic_classifier.fit.candidates", spy)
    fitted(**ONE, balance=balance)
    assert asked == [balance == "class_weights"]


def test_suggestions_are_for_a_classifier(caches):
    flags = [flag for flag, _ in suggestions(prepare(make_config(**ONE), RunOptions(None, caches), quiet()))]
    assert "--config.classifier.kind=svm" in flags
    assert not any("freeze" in flag for flag in flags)


def test_metrics_have_one_line(small_run):
    (record,) = map(json.loads, small_run[1].metrics_file.read_text().splitlines())
    assert record["validation_accuracy"] == small_run[1].result()["stages"][0]["validation"]["accuracy"]


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"model.pooling": "flatten"}, "config.model.pooling"),
        ({"model.hidden": (8,)}, "config.model.hidden"),
        ({"augment.preset": "keras_layers", "augment.flip": "horizontal"}, "config.augment.bank: got 0"),
        ({"stages.classifier.freeze": "none"}, "freeze='all'"),
        ({"classifier.c_values": (0.0,)}, "config.classifier.c_values"),
        ({"classifier.kind": "forest"}, "config.classifier.kind"),
        ({"balance": "sampling"}, "config.balance"),
    ],
)
def test_fields_that_make_no_sense_are_refused(fitted, changes, part):
    with pytest.raises(UserError, match=part.replace(".", r"\.")):
        fitted(**changes)


def test_too_many_pairs_are_refused(fitted, monkeypatch):
    monkeypatch.setattr("vision_transfer.tasks.classic_classifier.task.MOST_PAIRED_CLASSES", 9)
    with pytest.raises(UserError, match=r"at most 9 classes; the data has 10; use logistic_regression"):
        fitted(**ONE | {"classifier.kind": "pairwise"})


def test_every_class_must_be_taught(fitted):
    with pytest.raises(UserError, match=r"train_examples: got 3, which has no image of"):
        fitted(**ONE | {"dataset.train_examples": 3})

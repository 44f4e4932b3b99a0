"""The classifiers equal scikit-learn's pipeline of standardising and fitting, as one matrix and one vector."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsOneClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from vision_transfer.errors import UserError
from vision_transfer.tasks.classic_classifier.fit import (
    SHARPNESS,
    VOTE,
    Candidate,
    Classifier,
    Examples,
    accuracy,
    candidates,
    chosen,
    fit,
)

MODELS = {
    "logistic_regression": lambda c: LogisticRegression(C=c, max_iter=5000),
    "svm": lambda c: LinearSVC(C=c, dual=True, random_state=0, max_iter=5000),
}


@pytest.fixture(scope="module")
def digits():
    """Pixels as features, some of which are the same in all images."""
    pixels, labels = load_digits(return_X_y=True)
    return pixels.astype(np.float32), labels


def split(digits, classes, first, last):
    pixels, labels = digits
    wanted = labels < classes
    return Examples(pixels[wanted][first:last], labels[wanted][first:last])


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("c", [1e-3, 0.1])
def test_logits_agree_with_scikit_learn(digits, kind, classes, c):
    train, rest = split(digits, classes, 0, 200), split(digits, classes, 200, 350)
    pipeline = make_pipeline(StandardScaler(), MODELS[kind](c)).fit(train.features.astype(np.float64), train.labels)
    classifier, converged = fit(kind, c, train)
    expected = pipeline.decision_function(rest.features.astype(np.float64)).reshape(len(rest.labels), -1)
    np.testing.assert_allclose(classifier.logits(rest.features), expected, rtol=1e-6, atol=1e-8)
    assert accuracy(classifier, rest) == pipeline.score(rest.features.astype(np.float64), rest.labels)
    assert converged


@pytest.mark.parametrize("c", [1e-3, 0.1])
@pytest.mark.parametrize("balance", [None, "balanced"])
def test_pairs_agree_with_scikit_learn(digits, c, balance):
    """Its one-against-one classifiers have positive margins for the second class of a pair."""
    train, rest = split(digits, 5, 0, 200), split(digits, 5, 200, 500)
    scaler = StandardScaler().fit(train.features.astype(np.float64))
    model = OneVsOneClassifier(LogisticRegression(C=c, max_iter=5000, class_weight=balance))
    model.fit(scaler.transform(train.features.astype(np.float64)), train.labels)
    seen = scaler.transform(rest.features.astype(np.float64))
    margins = np.stack([-one.decision_function(seen) for one in model.estimators_], axis=1)
    classifier, converged = fit("pairwise", c, train, balanced=balance is not None)
    found = rest.features.astype(np.float64) @ classifier.kernel + classifier.bias
    np.testing.assert_allclose(found, SHARPNESS * margins, rtol=1e-3, atol=1e-4)
    votes = np.zeros((len(seen), 5))
    for column, (first, second) in enumerate([(i, j) for i in range(5) for j in range(i + 1, 5)]):
        share = 1 / (1 + np.exp(-SHARPNESS * margins[:, column]))
        votes[:, first] += VOTE * share
        votes[:, second] += VOTE * (1 - share)
    np.testing.assert_allclose(classifier.logits(rest.features), votes, atol=1e-3)
    assert converged
    # Scikit-learn counts whole votes.
    answers = np.argmax(classifier.logits(rest.features), axis=1)
    assert np.mean(answers == model.predict(seen)) > 0.98


def test_a_pair_alone_is_a_logistic_regression_that_votes(digits):
    train, rest = split(digits, 2, 0, 200), split(digits, 2, 200, 350)
    pair, plain = (fit(kind, 0.1, train)[0] for kind in ("pairwise", "logistic_regression"))
    np.testing.assert_array_equal(np.argmax(pair.logits(rest.features), 1), plain.logits(rest.features)[:, 0] > 0)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("c", [1e-3, 0.1])
def test_more_features_than_examples_have_scikit_learn_s_classifier(digits, kind, c):
    """It is computed in the space that the examples span."""
    train, rest = split(digits, 10, 0, 50), split(digits, 10, 200, 350)
    pairs = np.triu_indices(train.features.shape[1])
    wide, others = (part.features[:, pairs[0]] * part.features[:, pairs[1]] for part in (train, rest))
    model = MODELS[kind](c).set_params(tol=1e-9)
    pipeline = make_pipeline(StandardScaler(), model).fit(wide.astype(np.float64), train.labels)
    classifier, converged = fit(kind, c, Examples(wide, train.labels))
    expected = pipeline.decision_function(others.astype(np.float64))
    found = classifier.logits(others)
    assert converged
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-3 * np.abs(expected).max())
    assert np.mean(np.argmax(found, axis=1) == np.argmax(expected, axis=1)) >= 0.99


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("examples", [20, 200])
def test_a_feature_that_differs_by_rounding_has_no_weight(digits, kind, examples):
    """As a channel that no image activates, whose average is summed in another order elsewhere."""
    train, rest = split(digits, 10, 0, examples), split(digits, 10, 200, 350)

    def with_rounding(part, seed):
        bits = np.random.default_rng(seed).integers(-1, 2, (len(part.labels), 3))
        return Examples(
            np.concatenate([part.features, np.float32(3) + bits * np.spacing(np.float32(3))], 1), part.labels
        )

    plain, rounded = fit(kind, 0.1, train)[0], fit(kind, 0.1, with_rounding(train, 0))[0]
    assert not rounded.kernel[-3:].any()
    np.testing.assert_allclose(
        rounded.logits(with_rounding(rest, 1).features), plain.logits(rest.features), rtol=1e-6, atol=1e-8
    )


@pytest.mark.parametrize("kind", [*MODELS, "pairwise"])
@pytest.mark.parametrize("features", [3, 50])
def test_examples_that_are_all_alike_have_a_classifier_without_weights(kind, features):
    classifier, _ = fit(kind, 0.1, Examples(np.full((20, features), 7, np.float32), np.arange(20) % 4))
    assert not classifier.kernel.any()
    assert np.isfinite(classifier.bias).all()


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("examples", [30, 200])
def test_the_variance_of_a_layer_grows_as_the_root_of_its_width(digits, kind, examples):
    """Beside scikit-learn's own scaling; features outnumber the fewer examples."""
    widths = (4, 16, 25)  # with roots 2, 4 and 5, whose sum is 11
    train, rest = split(digits, 10, 200, 200 + examples), split(digits, 10, 0, 200)
    varying = np.flatnonzero(train.features.std(axis=0) > 0)[: sum(widths)]
    train, rest = (Examples(part.features[:, varying], part.labels) for part in (train, rest))
    layers = np.repeat(np.arange(3), widths)
    scaler = StandardScaler().fit(train.features.astype(np.float64))
    weights = np.sqrt(45 / 11 * np.array([2, 4, 5]) / widths)[layers]

    def scaled(features):
        return scaler.transform(features.astype(np.float64)) * weights

    variances = scaled(train.features).var(axis=0)
    np.testing.assert_allclose([variances[layers == layer].sum() for layer in range(3)], 45 / 11 * np.array([2, 4, 5]))
    model = MODELS[kind](0.01).set_params(tol=1e-9).fit(scaled(train.features), train.labels)
    expected = model.decision_function(scaled(rest.features))
    found = fit(kind, 0.01, train, widths=widths)[0].logits(rest.features)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-3 * np.abs(expected).max())


@pytest.mark.parametrize("kind", MODELS)
def test_balanced_class_weights_agree_with_scikit_learn(digits, kind):
    whole = split(digits, 3, 0, 300)
    # All of class 0, a tenth of the others.
    kept = (whole.labels == 0) | (np.arange(len(whole.labels)) % 10 == 0)
    train = Examples(whole.features[kept], whole.labels[kept])
    model = MODELS[kind](0.1).set_params(class_weight="balanced")
    pipeline = make_pipeline(StandardScaler(), model).fit(train.features.astype(np.float64), train.labels)
    balanced, plain = (fit(kind, 0.1, train, balanced=which)[0].logits(whole.features) for which in (True, False))
    np.testing.assert_allclose(balanced, pipeline.decision_function(whole.features.astype(np.float64)), rtol=1e-6)
    assert np.abs(balanced - plain).max() > 0.01


def test_each_value_of_c_is_tried_once_in_order(digits):
    train, validation = split(digits, 10, 0, 200), split(digits, 10, 200, 300)
    found = candidates("logistic_regression", (1.0, 0.01, 1), train, validation)
    assert [candidate.c for candidate in found] == [0.01, 1.0]
    for candidate in found:
        direct = make_pipeline(StandardScaler(), MODELS["logistic_regression"](candidate.c))
        direct.fit(train.features.astype(np.float64), train.labels)
        assert candidate.train_accuracy == direct.score(train.features.astype(np.float64), train.labels)
        assert candidate.validation_accuracy == direct.score(validation.features.astype(np.float64), validation.labels)


def test_validation_chooses_and_the_stronger_penalty_wins_a_tie():
    nothing = Classifier(np.zeros((1, 1)), np.zeros(1))
    tried = [Candidate(c, nothing, 1.0, score, True) for c, score in ((0.1, 0.8), (1.0, 0.9), (10.0, 0.9))]
    assert chosen(tried).c == 1.0


def test_a_solver_that_did_not_converge_is_reported(digits, monkeypatch):
    monkeypatch.setattr("vision_transfer.tasks.classic_classifier.fit.MOST_ITERATIONS", 1)
    assert not fit("logistic_regression", 1.0, split(digits, 10, 0, 200))[1]


@pytest.mark.parametrize("values", [(), (1.0, 0.0), (-1,), ("1",)])
def test_values_of_c_must_be_numbers_above_zero(digits, values):
    train = split(digits, 2, 0, 20)
    with pytest.raises(UserError, match="c_values"):
        candidates("svm", values, train, train)

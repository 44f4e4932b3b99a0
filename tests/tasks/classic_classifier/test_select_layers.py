"""Forward selection of layers on features of which it is known what they are worth."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from vision_transfer.metrics.significance import within_one_standard_error
from vision_transfer.tasks.classic_classifier.fit import Examples, Fitting, chosen_set, layer_sets, outcomes

COLUMNS = {"noise": np.arange(0, 5), "first": np.arange(5, 7), "second": np.arange(7, 10), "copy": np.arange(10, 12)}


@pytest.fixture(scope="module")
def fitting():
    """Four classes: `first` tells two pairs apart, `copy` is a worse one of it, `second` tells within the pairs."""
    random = np.random.default_rng(0)

    def examples(count):
        labels = np.arange(count) % 4
        features = random.normal(0, 1, (count, 12))
        features[:, 5:7] += 5 * (labels[:, None] // 2)
        features[:, 7:10] += 3 * (labels[:, None] % 2)
        features[:, 10:12] = features[:, 5:7] + random.normal(0, 3, (count, 2))
        return Examples(features.astype(np.float32), labels)

    return Fitting("logistic_regression", (0.01, 1.0), examples(200), examples(200), COLUMNS)


def test_a_set_is_scikit_learn_s_fit_to_its_columns_and_zero_elsewhere(fitting):
    found = fitting.fit({"second", "first"})
    assert found.layers == ("first", "second")
    # the sums of variances of a layer of two features and one of three are as their roots, and are five in all
    of_feature = np.sqrt(5 / (np.sqrt(2) + np.sqrt(3)) / np.sqrt([2, 2, 3, 3, 3]))
    weighted = FunctionTransformer(lambda features: features * of_feature)
    models = [make_pipeline(StandardScaler(), weighted, LogisticRegression(C=c, max_iter=5000)) for c in (0.01, 1.0)]
    train, validation = fitting.train, fitting.validation
    scores = [
        model.fit(train.features[:, 5:10], train.labels).score(validation.features[:, 5:10], validation.labels)
        for model in models
    ]
    assert [one.validation_accuracy for one in found.fitted] == scores
    kernel = found.best.classifier.kernel
    assert kernel.shape == (12, 4)
    assert not kernel[:5].any() and not kernel[10:].any()
    expected = models[int(np.argmax(scores))].decision_function(validation.features[:, 5:10].astype(np.float64))
    np.testing.assert_allclose(found.best.classifier.logits(validation.features), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(found.correct, outcomes(found.best.classifier, validation))


def test_layers_that_help_are_selected_and_others_are_not(fitting):
    sets = layer_sets(fitting)
    assert [one.layers for one in sets[:4]] == [(name,) for name in COLUMNS]
    assert sum(one.layers == tuple(COLUMNS) for one in sets) == 1
    assert chosen_set(sets).layers == ("first", "second")


def test_of_layers_that_are_as_good_the_deepest_is_taken(fitting):
    same = replace(fitting, columns=COLUMNS | {"deep": COLUMNS["first"]})
    ones = [same.fit({name}) for name in ("noise", "first", "deep")]
    assert chosen_set(ones).layers == ("deep",)


def test_fewer_layers_are_taken_unless_they_are_shown_to_be_worse():
    best = np.ones(100, bool)
    one_wrong, many_wrong = best.copy(), best.copy()
    one_wrong[:1], many_wrong[:5] = False, False
    assert within_one_standard_error(best, best)
    # One image in one direction is one standard error; five are more than two.
    assert within_one_standard_error(one_wrong, best)
    assert not within_one_standard_error(many_wrong, best)

"""Linear classifiers that scikit-learn fits on standardised features, as plain arrays."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from vision_transfer.errors import UserError

# Iterations of lbfgs, or passes of liblinear over the data.
MOST_ITERATIONS = 5000


@dataclass(frozen=True)
class Linear:
    """A linear classifier of raw features, with the standardisation folded in; both arrays are float64.

    Two classes have a single output.
    """

    kernel: Float[np.ndarray, "features outputs"]
    bias: Float[np.ndarray, "outputs"]

    def logits(self, features: Float[np.ndarray, "examples features"]) -> Float[np.ndarray, "examples outputs"]:
        """Log-odds of a logistic regression, margins of a support vector machine."""
        return features.astype(np.float64) @ self.kernel + self.bias


@dataclass(frozen=True)
class Candidate:
    """A classifier fitted with one value of C, scikit-learn's inverse strength of the l2 penalty."""

    c: float
    classifier: Linear
    train_accuracy: float
    validation_accuracy: float
    converged: bool


@dataclass(frozen=True)
class Examples:
    """Pooled features of one split (float32) and labels."""

    features: Float[np.ndarray, "examples features"]
    labels: Int[np.ndarray, "examples"]


def fit(kind: str, c: float, train: Examples, *, balanced: bool = False) -> tuple[Linear, bool]:
    """A classifier fitted on standardised training features, and whether its solver converged.

    The kind is `logistic_regression` (softmax for more than two classes, lbfgs) or `svm` (linear, squared hinge loss,
    one class against the rest, liblinear's dual solver); `c` is the inverse strength of the l2 penalty. If `balanced`,
    each class has the same total weight in the loss.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import LinearSVC

    wide = train.features.astype(np.float64)
    mean, scale = wide.mean(axis=0), wide.std(axis=0)
    # A feature that is the same in all images becomes zero.
    scale = np.where(scale > 0, scale, 1.0)
    if kind == "svm":
        model = LinearSVC(C=c, random_state=0, max_iter=MOST_ITERATIONS).set_params(dual=True)
    else:
        model = LogisticRegression(C=c, max_iter=MOST_ITERATIONS)
    model.set_params(class_weight="balanced" if balanced else None)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit((wide - mean) / scale, train.labels)
    converged = not any(issubclass(entry.category, ConvergenceWarning) for entry in caught)
    kernel = model.coef_.T / scale[:, None]
    return Linear(kernel, model.intercept_ - mean @ kernel), converged


def candidates(
    kind: str, c_values: Sequence[float], train: Examples, validation: Examples, *, balanced: bool = False
) -> list[Candidate]:
    """A classifier for each value of C, in ascending order.

    Raises:
        UserError: there are no values, or one is not above 0.
    """
    if not c_values or not all(isinstance(c, int | float) and c > 0 for c in c_values):
        raise UserError(f"config.classifier.c_values: got {tuple(c_values)!r}; allowed are numbers above 0")
    found = []
    for c in sorted({float(c) for c in c_values}):
        classifier, converged = fit(kind, c, train, balanced=balanced)
        found.append(Candidate(c, classifier, accuracy(classifier, train), accuracy(classifier, validation), converged))
    return found


def chosen(fitted: Sequence[Candidate]) -> Candidate:
    """The best candidate on validation; on a tie, the one with the strongest penalty."""
    return max(fitted, key=lambda candidate: (candidate.validation_accuracy, -candidate.c))


def outcomes(classifier: Linear, examples: Examples) -> Bool[np.ndarray, "examples"]:
    """Whether each example is classified correctly."""
    logits = classifier.logits(examples.features)
    predicted = logits[:, 0] > 0 if logits.shape[1] == 1 else np.argmax(logits, axis=1)
    return predicted == examples.labels


def accuracy(classifier: Linear, examples: Examples) -> float:
    """Share of correctly classified examples."""
    return float(np.mean(outcomes(classifier, examples)))

"""Classifiers that scikit-learn fits on standardised features, and the choice of the layers that they see.

The features of several layers are scaled so that the sum of variances of a layer grows as the root of its width: three
fifths of the features of an EfficientNet-Lite0 are its last layer's, and would drown out the others, while equal sums
would drown out the last layer, which knows most of images that look like ImageNet's.

Head2Toe (Evci et al. 2022, arXiv:2201.03529) keeps the features that matter for the task, out of those of all layers.
Here whole layers are kept or left out, by forward selection on validation: a layer's few hundred features stand and
fall together, and few candidates are compared on the same images.

A pairwise classifier tells two classes apart at a time; the class that wins most pairs is the answer (Friedman 1996,
"Another Approach to Polychotomous Classification"). Each pair has a kernel of its own, while a softmax has to separate
a class from all others with one.
"""

import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import expit
from threadpoolctl import threadpool_limits

from vision_transfer.errors import UserError
from vision_transfer.metrics.significance import within_one_standard_error
from vision_transfer.models.heads import class_pairs

# Iterations of lbfgs, or passes of liblinear over the data.
MOST_ITERATIONS = 5000
# A feature's deviation must exceed this multiple of its largest value. A channel that no image activates differs in the
# last of float32's 24 bits, 6e-8; scaled to deviation 1 that would get weights of millions, and predict from rounding.
# Devices and libraries add in another order, which changes averages by up to 1e-6: by no more than 1 % of this.
LEAST_DEVIATION = 1e-4
# Factor of the log-odds of a pair before their sigmoid. It makes most votes whole: with divided ones (a factor of 1), a
# few pairs in doubt outvote many that are sure. A larger one would hide from heat maps what a vote depends on.
SHARPNESS = 2.0
# Log-odds that a vote gives to a class: runs on hand signs were calibrated by temperatures whose reciprocals are 1.9 to
# 3.1. The loss and probabilities before calibration depend on it, the answers do not.
VOTE = 2.5
# More classes have more than 780 pairs, whose kernels would be larger than most backbones.
MOST_PAIRED_CLASSES = 40
# Products are so small that a second thread makes the solver two to four times slower, and on a busy machine twenty.
# More threads also add in another order, so that workers with a share of the cores would differ from a single process.
one_thread = threadpool_limits.wrap(limits=1)
# Layer → the columns of its features among those of all layers.
Columns = Mapping[str, Int[np.ndarray, "columns"]]


@dataclass(frozen=True)
class Classifier:
    """A classifier of raw features, with the standardisation folded in; all arrays are float64.

    Attributes:
        kernel, bias: of its linear part, which has an output for each class, for two classes a single one, or one for
            each of `class_pairs`.
        votes: for each pair `VOTE` for its first class and -`VOTE` for its second; None for other classifiers.
    """

    kernel: Float[np.ndarray, "features outputs"]
    bias: Float[np.ndarray, "outputs"]
    votes: Float[np.ndarray, "outputs classes"] | None = None

    @property
    def votes_against(self) -> Float[np.ndarray, "classes"]:
        """The votes of the pairs in which a class is the second, so that it gets what their sigmoids leave of them."""
        assert self.votes is not None, "only pairs vote"
        return -np.minimum(self.votes, 0.0).sum(axis=0)

    @one_thread
    def logits(self, features: Float[np.ndarray, "examples features"]) -> Float[np.ndarray, "examples classes"]:
        """Log-odds of a logistic regression, margins of a support vector machine, or sums of votes."""
        outputs = features.astype(np.float64) @ self.kernel + self.bias
        return outputs if self.votes is None else expit(outputs) @ self.votes + self.votes_against


@dataclass(frozen=True)
class Candidate:
    """A classifier fitted with one value of C, scikit-learn's inverse strength of the l2 penalty."""

    c: float
    classifier: Classifier
    train_accuracy: float
    validation_accuracy: float
    converged: bool


@dataclass(frozen=True)
class Examples:
    """Pooled features of one split (float32) and labels."""

    features: Float[np.ndarray, "examples features"]
    labels: Int[np.ndarray, "examples"]


def fit(
    kind: str, c: float, train: Examples, *, widths: Sequence[int] = (), balanced: bool = False
) -> tuple[Classifier, bool]:
    """A classifier fitted on standardised training features, and whether its solver converged.

    The kind is `logistic_regression` (softmax for more than two classes, lbfgs), `svm` (linear, squared hinge loss,
    one class against the rest, liblinear's dual solver) or `pairwise` (a logistic regression for each pair of classes);
    `c` is the inverse strength of the l2 penalty. `widths` has the number of features of each layer, if there are
    several. If `balanced`, each class has the same total weight in the loss.
    """
    return _fit(kind, c, _standardised(train.features, widths), train.labels, balanced=balanced)


def mean_and_scale(
    features: Float[np.ndarray, "examples features"],
) -> tuple[Float[np.ndarray, "features"], Float[np.ndarray, "features"]]:
    """The mean of each feature, and what to divide it by so that its deviation is 1.

    Dividing makes a feature zero that is the same in all images, also where rounding makes it differ.
    """
    deviation = features.std(axis=0)
    differs = deviation > LEAST_DEVIATION * np.abs(features).max(axis=0)
    return features.mean(axis=0), np.where(differs, deviation, np.inf)


@dataclass(frozen=True)
class _Standardised:
    """Features with mean 0 and a mean variance of 1, in coordinates of the space that the examples span.

    Attributes:
        coordinates: of each example; the features themselves where they are fewer than the examples.
        basis: of that space; None for the features themselves.
        mean, scale: of each feature.
    """

    coordinates: Float[np.ndarray, "examples coordinates"]
    basis: Float[np.ndarray, "features coordinates"] | None
    mean: Float[np.ndarray, "features"]
    scale: Float[np.ndarray, "features"]


@one_thread
def _standardised(features: Float[np.ndarray, "examples features"], widths: Sequence[int]) -> _Standardised:
    """Standardised features, turned into fewer coordinates where they outnumber the examples.

    Each feature has deviation 1, or one that falls with the width of its layer where `widths` has several.

    A kernel with an l2 penalty lies in the span of the examples (Kimeldorf and Wahba 1971), and a rotation changes
    neither products nor the penalty, so that the classifier is the same and each iteration of a solver costs less.
    """
    wide = features.astype(np.float64)
    mean, scale = mean_and_scale(wide)
    if widths:
        variances = 1 / np.sqrt(np.repeat(widths, widths))
        scale /= np.sqrt(variances / variances.mean())
    wide = (wide - mean) / scale
    if wide.shape[1] <= wide.shape[0]:
        return _Standardised(wide, None, mean, scale)
    squares, vectors = np.linalg.eigh(wide @ wide.T)
    kept = squares > len(wide) * np.finfo(np.float64).eps * squares[-1]
    if not kept.any():  # all examples are the same
        return _Standardised(wide, None, mean, scale)
    lengths = np.sqrt(squares[kept])
    return _Standardised(vectors[:, kept] * lengths, wide.T @ (vectors[:, kept] / lengths), mean, scale)


@one_thread
def _fit(
    kind: str, c: float, train: _Standardised, labels: Int[np.ndarray, "examples"], *, balanced: bool
) -> tuple[Classifier, bool]:
    if kind == "pairwise":
        return _fit_pairs(c, train, labels, balanced=balanced)
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import LinearSVC

    if kind == "svm":
        model = LinearSVC(C=c, random_state=0, max_iter=MOST_ITERATIONS).set_params(dual=True)
    else:
        model = LogisticRegression(C=c, max_iter=MOST_ITERATIONS)
    model.set_params(class_weight="balanced" if balanced else None)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(train.coordinates, labels)
    converged = not any(issubclass(entry.category, ConvergenceWarning) for entry in caught)
    kernel = (model.coef_.T if train.basis is None else train.basis @ model.coef_.T) / train.scale[:, None]
    return Classifier(kernel, model.intercept_ - train.mean @ kernel), converged


def _fit_pairs(
    c: float, train: _Standardised, labels: Int[np.ndarray, "examples"], *, balanced: bool
) -> tuple[Classifier, bool]:
    classes = int(labels.max()) + 1
    pairs, fitted = class_pairs(classes), []
    for first, second in pairs:
        rows = np.flatnonzero((labels == first) | (labels == second))
        of_pair = replace(train, coordinates=train.coordinates[rows])
        fitted.append(_fit("logistic_regression", c, of_pair, labels[rows] == first, balanced=balanced))
    kernel = SHARPNESS * np.hstack([classifier.kernel for classifier, _ in fitted])
    bias = SHARPNESS * np.hstack([classifier.bias for classifier, _ in fitted])
    votes = np.eye(classes)[[first for first, _ in pairs]] - np.eye(classes)[[second for _, second in pairs]]
    return Classifier(kernel, bias, VOTE * votes), all(converged for _, converged in fitted)


def candidates(
    kind: str,
    c_values: Sequence[float],
    train: Examples,
    validation: Examples,
    *,
    widths: Sequence[int] = (),
    balanced: bool = False,
) -> list[Candidate]:
    """A classifier for each value of C, in ascending order; for `widths` and `balanced` see `fit`.

    Raises:
        UserError: there are no values, or one is not above 0.
    """
    if not c_values or not all(isinstance(c, int | float) and c > 0 for c in c_values):
        raise UserError(f"config.classifier.c_values: got {tuple(c_values)!r}; allowed are numbers above 0")
    found, standardised = [], _standardised(train.features, widths)
    for c in sorted({float(c) for c in c_values}):
        classifier, converged = _fit(kind, c, standardised, train.labels, balanced=balanced)
        found.append(Candidate(c, classifier, accuracy(classifier, train), accuracy(classifier, validation), converged))
    return found


def chosen(fitted: Sequence[Candidate]) -> Candidate:
    """The best candidate on validation; on a tie, the one with the strongest penalty."""
    return max(fitted, key=lambda candidate: (candidate.validation_accuracy, -candidate.c))


def outcomes(classifier: Classifier, examples: Examples) -> Bool[np.ndarray, "examples"]:
    """Whether each example is classified correctly."""
    logits = classifier.logits(examples.features)
    predicted = logits[:, 0] > 0 if logits.shape[1] == 1 else np.argmax(logits, axis=1)
    return predicted == examples.labels


def accuracy(classifier: Classifier, examples: Examples) -> float:
    """Share of correctly classified examples."""
    return float(np.mean(outcomes(classifier, examples)))


@dataclass(frozen=True)
class LayerSet:
    """Classifiers on the features of some layers.

    Attributes:
        layers: in the order of the network.
        fitted: one for each value of C.
        best: the one of these that validation chose; its kernel is zero for the features of all other layers.
        correct: for each validation image, whether `best` classifies it correctly.
    """

    layers: tuple[str, ...]
    fitted: tuple[Candidate, ...]
    best: Candidate
    correct: Bool[np.ndarray, "examples"]


@dataclass(frozen=True)
class Fitting:
    """The examples that classifiers are fitted to, and the settings; see `candidates`."""

    kind: str
    c_values: Sequence[float]
    train: Examples
    validation: Examples
    columns: Columns
    balanced: bool = False

    def fit(self, layers: Collection[str]) -> LayerSet:
        """Classifiers on the features of some layers.

        Raises:
            UserError: values of C that cannot be used.
        """
        names = tuple(name for name in self.columns if name in layers)
        seen = np.concatenate([self.columns[name] for name in names])
        train, validation = (
            Examples(examples.features[:, seen], examples.labels) for examples in (self.train, self.validation)
        )
        widths = [len(self.columns[name]) for name in names]
        fitted = candidates(self.kind, self.c_values, train, validation, widths=widths, balanced=self.balanced)
        best = chosen(fitted)
        kernel = np.zeros((self.train.features.shape[1], best.classifier.kernel.shape[1]))
        kernel[seen] = best.classifier.kernel
        widened = replace(best, classifier=replace(best.classifier, kernel=kernel))
        return LayerSet(names, tuple(fitted), widened, outcomes(best.classifier, validation))


def layer_sets(fitting: Fitting) -> list[LayerSet]:
    """The sets that forward selection tries, in its order, and the set of all layers.

    It starts with the most accurate single layer and adds the layer that helps most, as long as one helps. Of layers
    that help equally, it takes the deepest.
    """
    tried: list[LayerSet] = []
    grown: LayerSet | None = None
    while grown is None or len(grown.layers) < len(fitting.columns):
        before = () if grown is None else grown.layers
        longer = [fitting.fit({*before, name}) for name in fitting.columns if name not in before]
        tried += longer
        best = max(reversed(longer), key=lambda one: one.best.validation_accuracy)
        if grown is not None and best.best.validation_accuracy <= grown.best.validation_accuracy:
            break
        grown = best
    everything = tuple(fitting.columns)
    return tried if any(one.layers == everything for one in tried) else [*tried, fitting.fit(everything)]


def chosen_set(sets: Sequence[LayerSet]) -> LayerSet:
    """The set with the fewest layers that is within one standard error of the most accurate.

    Of equals it takes the best one, and of these the deepest.
    """
    top = max(sets, key=lambda one: (one.best.validation_accuracy, -len(one.layers)))
    as_good = [one for one in sets if within_one_standard_error(one.correct, top.correct)]
    return min(reversed(as_good), key=lambda one: (len(one.layers), -one.best.validation_accuracy))

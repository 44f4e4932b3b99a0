"""The choice, on validation, of the layers whose pooled features a classifier sees.

Head2Toe (Evci et al. 2022, arXiv:2201.03529) keeps the features that matter for the task, out of those of all layers.
Here whole layers are kept or left out, by forward selection: a layer's few hundred features stand and fall together,
and few candidates are compared on the same validation images.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Int

from vision_transfer.metrics.significance import within_one_standard_error
from vision_transfer.tasks.classic_classifier.fit import Candidate, Examples, Linear, candidates, chosen, outcomes

# Layer → the columns of its features among those of all layers.
Columns = Mapping[str, Int[np.ndarray, "columns"]]


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
    """What classifiers are fitted to, and how; see `candidates`."""

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
        fitted = candidates(self.kind, self.c_values, train, validation, balanced=self.balanced)
        best = chosen(fitted)
        kernel = np.zeros((self.train.features.shape[1], best.classifier.kernel.shape[1]))
        kernel[seen] = best.classifier.kernel
        widened = replace(best, classifier=Linear(kernel, best.classifier.bias))
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
    """The set with the fewest layers that is within one standard error of the most accurate; of equals the best."""
    top = max(sets, key=lambda one: (one.best.validation_accuracy, -len(one.layers)))
    as_good = [one for one in sets if within_one_standard_error(one.correct, top.correct)]
    return min(as_good, key=lambda one: (len(one.layers), -one.best.validation_accuracy))

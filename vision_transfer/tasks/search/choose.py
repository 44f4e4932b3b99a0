"""The choice among trained candidates: the cheapest that is not shown to be worse than the best on validation."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from vision_transfer.metrics.cross_validation import out_of_fold_interval
from vision_transfer.metrics.significance import within_one_standard_error
from vision_transfer.tasks.search.candidates import Candidate
from vision_transfer.tasks.study.statistics import pareto_front


@dataclass(frozen=True)
class Scored:
    """A trained candidate.

    Attributes:
        candidate: what was trained.
        correct: for each validation image, whether it is classified correctly.
        loss: mean cross-entropy on validation, in nats.
        cost: floating-point operations to train it from the images.
        seconds: that its run took, with what it shared with earlier ones counted there.
        images: of each of its runs, one for each fold; they follow each other in `correct`.
    """

    candidate: Candidate
    correct: Bool[np.ndarray, "examples"]
    loss: float
    cost: float
    seconds: float
    images: tuple[int, ...]

    @property
    def accuracy(self) -> float:
        """Share of correctly classified validation images."""
        return float(np.mean(self.correct))

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the accuracy: Wilson's, or `out_of_fold_interval` of several folds."""
        return out_of_fold_interval(self.correct, np.repeat(np.arange(len(self.images)), self.images))

    def rank(self) -> tuple[float, float, float, str]:
        """Orders candidates from the best on: by accuracy, then loss, then cost; of equals, by name."""
        return (-self.accuracy, self.loss, self.cost, self.candidate.name)


def best(scored: Sequence[Scored]) -> Scored:
    """The candidate with the highest validation accuracy; of equals, that with the lowest loss."""
    return min(scored, key=Scored.rank)


def not_worse(one: Scored, top: Scored) -> bool:
    """Whether a candidate's accuracy is within one standard error of the best one's, on the same images."""
    return within_one_standard_error(one.correct, top.correct)


def chosen(scored: Sequence[Scored]) -> Scored:
    """The cheapest candidate within one standard error of the best (Breiman et al. 1984, section 3.4.3).

    Many candidates are compared on the same validation images, so the best one's accuracy flatters it; the rule trades
    a difference that these images cannot show for a model that costs less to train.
    """
    top = best(scored)
    return min((one for one in scored if not_worse(one, top)), key=lambda one: (one.cost, *one.rank()))


def front(scored: Sequence[Scored]) -> list[Scored]:
    """The Pareto front: candidates that no other one beats in cost and accuracy, from the cheapest on."""
    ordered = sorted(scored, key=Scored.rank)
    places = pareto_front([one.cost for one in ordered], [one.accuracy for one in ordered])
    return [ordered[place] for place in places]

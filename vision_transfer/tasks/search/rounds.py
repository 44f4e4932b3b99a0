"""The order of a search: which candidates it trains next, from what the earlier ones reached and what time is left.

Heads come first, base by base from the cheapest features on, as long as a base takes at most half of the time left;
bases that pool what was shown to be worse on an earlier one wait. Then successive halving (Jamieson and Talwalkar
2016, arXiv:1502.07943) over ways to fine-tune the bases with the best heads, where the time is enough for that, and the
cheapest ones: a round trains several of them briefly, its best third trains again for longer, until one is left; that
one gets the time left. If it needs less, the ways that have not been tried begin such a series of their own. In a
search by folds, a first round and rounds of several ways train each on the first fold only, and the last one's way is
trained for all. Each round trains from the pretrained weights with a schedule of its own, so that its learning rate
ends at 0. Where no way is left, the heads of bases come that were too expensive before, or that had to wait.

Everything here is a function of recorded values, so that a search that was killed goes on as it would have done.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from itertools import permutations

from vision_transfer.metrics.significance import paired
from vision_transfer.tasks.search.candidates import AVERAGE, Base, Candidate
from vision_transfer.tasks.search.choose import Scored, not_worse

# Share of the time left that the heads of one base may take.
HEADS_SHARE = 0.5
# Of the time left for a round that is not the last one, and the share of its candidates that go on.
ROUND_SHARE, KEPT_SHARE = 1 / 3, 1 / 3
# P-value of McNemar's exact test below which a pooling is shown to be worse than another one.
SIGNIFICANT = 0.05
# More epochs than this multiple of the last round's are worth a new run.
LEAST_GROWTH = 1.5
# Epochs that each way on a base with one of the best heads must be able to have to come before cheaper ones. On 1,000
# images of CIFAR-10 four epochs of all of Lite2 at 224 pixels (the run by hand in `configs/search.py` with
# `model.backbone=efficientnet_lite2` and `stages.tune.epochs=4`) have a validation accuracy of 0.900, and 15 of Lite0
# at 128 pixels, in the search, 0.888.
ENOUGH_EPOCHS = 4


@dataclass(frozen=True)
class Round:
    """Candidates to train, independent of each other, a title, and the seconds that they are expected to take."""

    title: str
    candidates: tuple[Candidate, ...]
    seconds: float


@dataclass(frozen=True)
class Allowance:
    """The time for fine-tuning.

    Attributes:
        left: seconds until the end.
        least, most: epochs of a run.
        way_seconds: of a way for a number of epochs, 0 for what it takes besides them.
        by_folds: whether ways are judged by folds; several of them are compared on the first one.
        base_seconds: to compute the features of a base, 0 if an earlier run has; its ways share them.
    """

    left: float
    least: int
    most: int
    way_seconds: Callable[[Candidate, int], float]
    by_folds: bool = False
    base_seconds: Callable[[Base], float] = lambda base: 0.0

    def in_round(self, ways: Sequence[Candidate]) -> list[Candidate]:
        """The ways as a round of them trains them."""
        return [replace(way, on_first_fold=self.by_folds and len(ways) > 1) for way in ways]

    def seconds(self, ways: Sequence[Candidate], epochs: int) -> float:
        """The expected time of these ways, each for this number of epochs."""
        features = sum(map(self.base_seconds, {way.base for way in ways}))
        return features + sum(self.way_seconds(way, epochs) for way in ways)

    def share(self, ways: Sequence[Candidate]) -> float:
        """The seconds that a round of these ways may take: all that are left for a single one."""
        return self.left if len(ways) == 1 else self.left * ROUND_SHARE

    def is_enough(self, ways: Sequence[Candidate]) -> bool:
        """Whether each of these ways, if it wins the first round, can have enough epochs to be worth it."""
        return all(self.seconds([way], ENOUGH_EPOCHS) <= self.left * (1 - ROUND_SHARE) for way in ways)

    def trial(self, way: Candidate) -> Round | None:
        """The shortest run of a way on the first fold, whose speed tells how many epochs fit; None if none is needed.

        It needs time besides the shortest runs of all folds.
        """
        tried = replace(way, on_first_fold=True).after(self.least)
        seconds = self.seconds([tried], self.least)
        if not self.by_folds or seconds + self.seconds([way], self.least) > self.left:
            return None
        return Round("fine-tuning, 1 way", (tried,), seconds)


def next_heads(heads: Sequence[Candidate], seconds: float, left: float) -> Round | None:
    """The round of a base's heads, which take so many seconds; None where that is too much of the time left."""
    return Round(f"heads on {heads[0].base.name}", tuple(heads), seconds) if seconds <= HEADS_SHARE * left else None


def has_lost(base: Base, done: Sequence[Scored]) -> bool:
    """Whether what a base pools was shown to be worse on some backbone than something else at the same image size."""
    heads: dict[Base, Scored] = {}
    for one in sorted((one for one in done if one.candidate.tuning is None), key=Scored.rank):
        heads.setdefault(one.candidate.base, one)
    return any(
        own.pooling == base.pooling
        and replace(own, pooling=other.pooling) == other
        and _worse(heads[own], heads[other])
        for own, other in permutations(heads, 2)
    )


def _worse(one: Scored, other: Scored) -> bool:
    found = paired(one.correct, other.correct)
    return found.first_only < found.second_only and found.p_value < SIGNIFICANT


def with_best_heads(done: Sequence[Scored], listed: Sequence[Base]) -> list[Base]:
    """Bases to fine-tune of each backbone and image size with a head, whatever it sees, that is not shown to be worse.

    Heads on all stages are not continued: below them little can be cached, and fine-tuning adapts the last map anyway.
    So the base is one that pools the last map only, of several `listed` ones that with the best head so far.
    """
    heads = sorted((one for one in done if one.candidate.tuning is None), key=Scored.rank)
    kept = [one.candidate.base for one in heads if not_worse(one, heads[0])]
    last_map = {_averaged(base): base for base in [*reversed(listed), *_bases(heads[::-1])] if base.sees_last_map_only}
    return [last_map[base] for base in dict.fromkeys(map(_averaged, kept)) if base in last_map]


def cheapest(done: Sequence[Scored], seconds: Callable[[Base], float]) -> list[Base]:
    """Bases to fine-tune: of each backbone the cheapest with a head on its last map."""
    heads = [one for one in done if one.candidate.tuning is None and one.candidate.base.sees_last_map_only]
    return [*{base.backbone: base for base in sorted(_bases(heads), key=seconds, reverse=True)}.values()]


def _averaged(base: Base) -> Base:
    """The same for all bases of a backbone and an image size, which are fine-tuned alike."""
    return replace(base, pooling=AVERAGE)


def _bases(scored: Sequence[Scored]) -> list[Base]:
    return [one.candidate.base for one in scored]


def first_tuning(ways: Sequence[Candidate], allowance: Allowance, preferred: Collection[Base] = ()) -> Round | None:
    """The first round of fine-tuning: as many ways as fit; None where not even one fits.

    Those on preferred bases come first, in their order, then the cheapest.
    """

    def order(way: Candidate) -> tuple[bool, float]:
        first = way.base in preferred
        return not first, 0.0 if first else allowance.seconds([way], allowance.least)

    fitting: list[Candidate] = []
    for way in sorted(ways, key=order):
        tried = allowance.in_round([*fitting, way])
        share, alone = allowance.share(tried), allowance.seconds([way], allowance.least)
        # the way that is left in the end has to fit as well, which is for all folds
        if allowance.seconds(tried, allowance.least) > share or (fitting and alone > allowance.left - share):
            break
        fitting.append(way)
    if len(fitting) == 1 and (trial := allowance.trial(fitting[0])) is not None:
        return trial
    return _round(fitting, allowance) if fitting else None


def next_tuning(last: Sequence[Scored], allowance: Allowance) -> Round | None:
    """The round after one of fine-tuning: its best third, else its best, for longer or for all folds.

    None where neither is worth a run or the time. `last` are the candidates of that round that were trained, at least
    one.
    """
    kept = [one.candidate for one in sorted(last, key=Scored.rank)[: max(1, int(len(last) * KEPT_SHARE))]]
    before = max(one.candidate.tuning.epochs for one in last if one.candidate.tuning is not None)
    for ways in (kept, kept[:1]):
        found = _round(ways, allowance)
        for one in found.candidates:
            is_longer = one.tuning is not None and one.tuning.epochs >= LEAST_GROWTH * before
            if is_longer or one.on_first_fold < last[0].candidate.on_first_fold:
                return found
    return None


def _round(ways: Sequence[Candidate], allowance: Allowance) -> Round:
    """These ways for as many epochs, within the bounds, as their share of the time allows; none for too little."""
    ways = allowance.in_round(ways)
    of_one = allowance.seconds(ways, 1) - allowance.seconds(ways, 0)
    affordable = int((allowance.share(ways) - allowance.seconds(ways, 0)) / of_one)
    epochs = min(affordable, allowance.most)
    trained = [way.after(epochs) for way in ways] if epochs >= allowance.least else []
    title = f"fine-tuning, {len(ways)} {'way' if len(ways) == 1 else 'ways'}"
    return Round(title, tuple(trained), allowance.seconds(ways, epochs))

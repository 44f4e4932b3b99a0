"""The times of what a search may do next, from the speeds that its runs have had so far."""

from collections.abc import Collection
from dataclasses import dataclass, replace

from vision_transfer.tasks.search.candidates import Base, Candidate, heads_on
from vision_transfer.tasks.search.costs import Measured, Speed, has_depthwise, speed_of
from vision_transfer.tasks.search.journal import Entry, Journal
from vision_transfer.tasks.search.plan import Search


@dataclass(frozen=True)
class Pace:
    """Expected seconds of candidates.

    Attributes:
        plan: the search.
        speed: of each base.
        with_features: bases whose features an earlier run has computed.
    """

    plan: Search
    speed: dict[Base, Speed]
    with_features: frozenset[Base]

    def base_seconds(self, base: Base) -> float:
        """To compute the features of a base; 0 where an earlier run has."""
        return 0.0 if base in self.with_features else self.speed[base].forward * self.plan.features(base)

    def heads_seconds(self, base: Base) -> float:
        """Of all heads on a base, with its features."""
        plan, speed = self.plan, self.speed[base]
        heads = heads_on(plan.config, base)
        first = speed.seconds(plan.work(heads[0], has_features=False))
        return first + sum(speed.seconds(plan.work(head)) for head in heads[1:])

    def way_seconds(self, way: Candidate, epochs: int) -> float:
        """Of a way to fine-tune for a number of epochs, besides the features of its base."""
        folds, seconds = self.plan.folds, self.speed[way.base].seconds(replace(self.plan.work(way), epochs=epochs))
        # if it is chosen, it is trained again on the images of all folds
        return seconds if way.on_first_fold or not folds else seconds * folds / (folds - 1)

    def test_seconds(self, bases: Collection[Base]) -> float:
        """The most that the test of the chosen run may take, which is on one of these bases."""
        return max(self.speed[base].forward * self.plan.test(base) for base in bases)


def pace_of(plan: Search, journal: Journal) -> Pace:
    """The pace of a search so far."""
    measured: dict[Base, list[Measured]] = {}
    for one, entry in journal.entries.items():
        if entry.folders:
            of_base = measured.setdefault(one.base, [])
            of_base.append(_measured(plan, one, entry, first=not of_base))
    everything = [one for of_base in measured.values() for one in of_base]
    speed = {
        base: speed_of(base.backbone, has_depthwise(network), everything, journal.product_seconds)
        for base, network in plan.networks.items()
    }
    begun = frozenset(one.base for planned in journal.rounds for one in planned.candidates)
    return Pace(plan, speed, begun)


def _measured(plan: Search, candidate: Candidate, entry: Entry, *, first: bool) -> Measured:
    """The cost of a candidate; `first` if it is the first one of its base, which computes the features."""
    work = plan.work(candidate, has_features=not first)
    base, seconds = candidate.base, (entry.forward_seconds, entry.training_seconds, entry.total_seconds)
    return Measured(base.backbone, has_depthwise(plan.networks[base]), work, *seconds)

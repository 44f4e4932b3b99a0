"""The round that follows those in a search's journal, from what its candidates reached and the time that is left."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vision_transfer.errors import UserError
from vision_transfer.runs.folder import RunFolder
from vision_transfer.runs.trained import Judged, joined, read_judged
from vision_transfer.runtime.console import duration
from vision_transfer.tasks.search.candidates import Base, heads_on
from vision_transfer.tasks.search.choose import Scored
from vision_transfer.tasks.search.journal import Journal
from vision_transfer.tasks.search.pace import Pace, pace_of
from vision_transfer.tasks.search.plan import Search
from vision_transfer.tasks.search.rounds import (
    Allowance,
    Round,
    cheapest,
    first_tuning,
    has_lost,
    next_heads,
    next_tuning,
    with_best_heads,
)

# Part of the time that is not planned, because a run may take longer than expected.
MARGIN = 0.1


def next_round(plan: Search, journal: Journal, budget: float) -> Round | None:
    """The round that follows those in the journal, within a budget of seconds; None where the search ends.

    Raises:
        UserError: the time is too little for the heads of a single base.
    """
    scored, pace, left = all_scored(plan, journal), pace_of(plan, journal), (1 - MARGIN) * budget - journal.seconds
    if not journal.rounds:
        _check_time(pace.heads_seconds(_with_cheapest_features(list(plan.networks), pace)), left, budget)
    before = [one for planned in journal.rounds for one in planned.candidates]
    with_heads = {one.base for one in before if one.tuning is None}
    waiting = [base for base in plan.networks if base not in with_heads]
    heads = _heads_of([base for base in waiting if not has_lost(base, scored)], pace, left)
    if heads is not None and (not before or journal.rounds[-1].candidates[0].tuning is None):
        return heads
    listed = list(plan.networks)
    best = with_best_heads(scored, listed)
    allowance = Allowance(
        left - pace.test_seconds({*pace.with_features, *best}),
        min(plan.config.search.least_epochs, plan.config.search.most_epochs),
        plan.config.search.most_epochs,
        pace.way_seconds,
        by_folds=bool(plan.folds),
        base_seconds=pace.base_seconds,
    )
    last = [one for one in scored if one.candidate in journal.rounds[-1].candidates and one.candidate.tuning]
    longer = next_tuning(last, allowance) if last else None
    if longer is not None:
        return longer
    tried = {replace(one.after(1), on_first_fold=False) for one in before if one.tuning is not None}
    preferred = [base for base in best if allowance.is_enough(plan.ways(base))]
    promising = dict.fromkeys([*preferred, *cheapest(scored, pace.heads_seconds)])
    ways = [way for base in promising for way in plan.ways(base) if way not in tried]
    return first_tuning(ways, allowance, preferred) or heads or _heads_of(waiting, pace, left)


def all_scored(plan: Search, journal: Journal) -> list[Scored]:
    """The scores of the journal's candidates, in their order, without those that failed."""
    found: list[Scored] = []
    for candidate, entry in journal.entries.items():
        if entry.folders:
            parts = judged_runs(plan, entry.folders)
            judged, images = joined(parts), tuple(len(part.correct) for part in parts)
            found.append(Scored(candidate, judged.correct, judged.loss, plan.cost(candidate), entry.seconds, images))
    return found


def judged_runs(plan: Search, folders: Sequence[Path]) -> list[Judged]:
    """The answers of each run.

    Raises:
        UserError: a run is gone.
    """
    parts: list[Judged] = []
    for folder in folders:
        found = read_judged(RunFolder(folder), by_test=bool(plan.folds))
        if found is None:
            raise UserError(f"{folder}: the run of a search is not there any more; remove search.json to search again")
        parts.append(found)
    return parts


def _heads_of(waiting: Sequence[Base], pace: Pace, left: float) -> Round | None:
    """The heads of the base whose features take the least, of those that wait for theirs."""
    if not waiting:
        return None
    base = _with_cheapest_features(waiting, pace)
    # the first base may take all of the time
    allowed = left - pace.test_seconds({base, *pace.with_features}) if pace.with_features else math.inf
    return next_heads(heads_on(pace.plan.config, base), pace.heads_seconds(base), allowed)


def _with_cheapest_features(waiting: Sequence[Base], pace: Pace) -> Base:
    return min(waiting, key=lambda base: pace.speed[base].forward * pace.plan.features(base))


def _check_time(needed: float, left: float, budget: float) -> None:
    if needed > left:
        raise UserError(
            f"config.search.minutes: got {budget / 60:g}; the heads of the cheapest backbone and image size alone need "
            f"about {duration(needed / (1 - MARGIN))}; give more minutes, fewer images "
            "(--config.dataset.train_examples) or smaller ones (--config.search.image_sizes)"
        )

"""The next round of a search, from journals as runs would have left them."""

import json
from dataclasses import replace

import pytest

from vision_transfer.config import checked
from vision_transfer.config.files import load_config
from vision_transfer.errors import UserError
from vision_transfer.runs.build import DataFacts, build_network
from vision_transfer.tasks.search.candidates import Base, Candidate, bases, with_base
from vision_transfer.tasks.search.journal import Entry, Journal
from vision_transfer.tasks.search.next_round import next_round
from vision_transfer.tasks.search.pace import pace_of
from vision_transfer.tasks.search.plan import Search
from vision_transfer.tasks.search.rounds import Round

SIZES = {"train": 1000, "validation": 100, "test": 1000}
SMALL, LARGE = Base("efficientnet_lite0", 128), Base("efficientnet_lite0", 224)
ALL_STAGES = "layers_in_quarters"
# Right of 100 validation images: at 224 pixels only heads on all stages were tried, since the last map had lost.
RIGHT = {
    Candidate(SMALL): 70,
    Candidate(replace(SMALL, pooling=ALL_STAGES), "logistic_regression"): 84,
    Candidate(replace(LARGE, pooling=ALL_STAGES), "logistic_regression"): 95,
}


@pytest.fixture
def plan(tmp_path):
    config = load_config("search")
    config.search.backbones = ("efficientnet_lite0",)
    config = checked(config)
    networks = {
        base: build_network(with_base(config, base), DataFacts(10, (base.image_size, base.image_size, 3)))
        for base in bases(config)
    }
    return Search(config, networks, SIZES, SIZES["test"], tmp_path, "digest")


@pytest.fixture
def journal(plan, tmp_path):
    """Heads at 25 images/s at 128 pixels and, in proportion to the operations, at 224."""
    made = Journal(tmp_path, "digest", 1e-12)
    for number, (candidate, right) in enumerate(RIGHT.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        validation = {"loss": 0.5, "examples": 100, "wrong": list(range(right, 100))}
        seconds = {"features": 1.0, "evaluate": 0.0, "total": 1.0}
        trained = {"validation": validation, "seconds": seconds, "stages": [{"epoch_seconds": 0.0}]}
        (folder / "trained.json").write_text(json.dumps(trained))
        made.begin(Round("heads", (candidate,), 1.0))
        forward = 44.0 * plan.features(candidate.base) / plan.features(SMALL)
        made.note(candidate, Entry((folder,), forward + 5, forward, 0.0, forward + 5))
    return made


def seconds_for(plan, journal, epochs, base):
    """That a first round and then so many epochs of the longest way on a base take."""
    pace = pace_of(plan, journal)
    return 1.5 * (pace.base_seconds(base) + max(pace.way_seconds(way, epochs) for way in plan.ways(base)))


def test_ways_where_the_heads_are_best_come_first_if_the_time_is_enough(plan, journal):
    needed = seconds_for(plan, journal, 4, LARGE) + pace_of(plan, journal).test_seconds([LARGE])
    for factor, expected in ((1.02, LARGE), (0.98, SMALL)):
        planned = next_round(plan, journal, (journal.seconds + factor * needed) / 0.9)
        assert {one.base for one in planned.candidates} == {expected}
    first = next_round(plan, journal, 36_000).candidates[0]
    assert (first.base, first.tuning.freeze, first.tuning.lr) == (LARGE, "none", 3e-4)


def test_features_that_no_run_has_computed_take_time(plan, journal):
    before = pace_of(plan, journal)
    assert before.base_seconds(SMALL) == 0
    assert before.base_seconds(LARGE) == pytest.approx(44.0 * plan.features(LARGE) / plan.features(SMALL))
    journal.begin(Round("heads", (Candidate(LARGE),), 1.0))
    assert pace_of(plan, journal).base_seconds(LARGE) == 0


def test_a_base_that_was_fine_tuned_without_heads_still_waits_for_them(plan, journal):
    """Where nothing is left to fine-tune."""
    plan = replace(
        plan, config=replace(plan.config, search=replace(plan.config.search, freeze=("none",), most_epochs=1))
    )
    for way in [way for base in (LARGE, SMALL) for way in plan.ways(base)]:
        journal.begin(Round("fine-tuning", (way,), 1.0))
        journal.note(way, Entry((), 1.0, error="failed"))
    planned = next_round(plan, journal, 36_000)
    assert {one.base for one in planned.candidates} == {LARGE} and planned.candidates[0].tuning is None


def test_time_for_the_test_is_that_of_the_last_run(plan, journal):
    pace = pace_of(plan, journal)
    larger = replace(pace, plan=replace(plan, tested=3000))
    assert larger.test_seconds([LARGE]) == pytest.approx(3 * pace.test_seconds([LARGE]))
    assert replace(pace, plan=replace(plan, tested=0)).test_seconds([LARGE]) == 0


def test_the_first_base_is_the_one_whose_time_was_checked(plan, tmp_path):
    """Averages and all stages take the same features, but averages have one head more."""
    journal = Journal(tmp_path, "digest", 1e-12)
    pace = pace_of(plan, journal)
    needed = pace.heads_seconds(SMALL)
    assert needed > pace.heads_seconds(replace(SMALL, pooling=ALL_STAGES))
    with pytest.raises(UserError, match="need about"):
        next_round(plan, journal, (needed - 1) / 0.9)
    assert next_round(plan, journal, (needed + 1) / 0.9).seconds == pytest.approx(needed)


def test_a_run_that_is_gone_is_named(plan, journal):
    folder = next(iter(journal.entries.values())).folders[0]
    (folder / "trained.json").unlink()
    with pytest.raises(UserError, match="is not there any more; remove search"):
        next_round(plan, journal, 600)


def test_too_little_time_for_the_heads_of_one_base(plan, tmp_path):
    with pytest.raises(UserError, match=r"config.search.minutes: got 0.1; .* need about"):
        next_round(plan, Journal(tmp_path, "digest", 1e-10), 6)

"""Successive halving within a time: what each round may take, and how rounds follow each other."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vision_transfer.config import checked
from vision_transfer.config.files import load_config
from vision_transfer.models.backbones.registry import backbone_rows
from vision_transfer.models.network import Network
from vision_transfer.runs.build import DataFacts, build_network
from vision_transfer.tasks.benchmark.costs import prefix_flops
from vision_transfer.tasks.search.candidates import Base, Candidate, Tuning, with_base
from vision_transfer.tasks.search.choose import Scored
from vision_transfer.tasks.search.costs import (
    OVERHEAD_SECONDS,
    Measured,
    Speed,
    Work,
    has_depthwise,
    run_work,
    speed_of,
)
from vision_transfer.tasks.search.rounds import (
    ENOUGH_EPOCHS,
    Allowance,
    cheapest,
    first_tuning,
    has_lost,
    next_heads,
    next_tuning,
    with_best_heads,
)

BASE = Base("efficientnet_lite0", 128)
SECONDS = st.floats(0.1, 100)


def ways(count):
    return [Candidate(BASE, tuning=Tuning("none", 10.0**-number, 1)) for number in range(1, count + 1)]


def allowance(left, epoch=10.0, other=5.0, least=1, most=15, folds=0):
    def seconds(way, epochs):
        return (other + epoch * epochs) * (1 if way.on_first_fold else folds or 1)

    return Allowance(left, least, most, seconds, by_folds=bool(folds))


@given(st.integers(1, 6), st.floats(0, 10_000), SECONDS, SECONDS)
def test_a_round_never_takes_more_than_what_is_left(count, left, epoch, other):
    allowed = allowance(left, epoch, other)
    planned = first_tuning(ways(count), allowed)
    if planned is None:
        assert left < epoch + other
        return
    taken = sum(allowed.way_seconds(one, one.tuning.epochs) for one in planned.candidates)
    assert taken <= (left if len(planned.candidates) == 1 else left / 3) + 1e-6


def test_the_best_third_goes_on_for_longer_until_one_has_all_the_time(scored):
    first = first_tuning(ways(3), allowance(400.0))
    # 133 s for three ways: 15 s besides their epochs, and 30 s for an epoch of all
    assert [one.tuning.epochs for one in first.candidates] == [3, 3, 3]
    last = [
        replace(scored([True] * right + [False] * (10 - right)), candidate=one)
        for right, one in zip((7, 9, 8), first.candidates, strict=True)
    ]
    second = next_tuning(last, allowance(300.0))
    assert [(one.tuning.lr, one.tuning.epochs) for one in second.candidates] == [(0.01, 15)]
    final = [replace(last[1], candidate=second.candidates[0])]
    assert next_tuning(final, allowance(1000.0)) is None, "there is nothing longer than the most epochs"


def test_with_folds_ways_are_compared_on_the_first_one_and_the_best_is_trained_for_all(scored):
    allowed = allowance(900.0, folds=5)
    first = first_tuning(ways(3), allowed)
    # 300 s for three ways on one fold each, with 30 s for an epoch of all
    assert [(one.on_first_fold, one.tuning.epochs) for one in first.candidates] == [(True, 9)] * 3
    last = [
        replace(scored([True] * right + [False] * (10 - right)), candidate=one)
        for right, one in zip((7, 9, 8), first.candidates, strict=True)
    ]
    final = next_tuning(last, allowance(500.0, folds=5))
    # 25 s besides the epochs of 50 s; as many as in the round before, but for all folds
    assert [(one.on_first_fold, one.tuning.lr, one.tuning.epochs) for one in final.candidates] == [(False, 0.01, 9)]
    assert next_tuning([replace(last[1], candidate=final.candidates[0])], allowance(500.0, folds=5)) is None


@given(st.integers(1, 6), st.floats(0, 10_000), SECONDS, SECONDS)
def test_a_way_that_wins_on_the_first_fold_can_be_trained_for_all(count, left, epoch, other):
    first = first_tuning(ways(count), allowance(left, epoch, other, folds=5))
    if first is None:
        assert left < 5 * (epoch + other)
        return
    last = [Scored(one, np.ones(1, bool), 0.5, 1.0, 1.0, (1,)) for one in first.candidates]
    whole = first
    while whole.candidates[0].on_first_fold:
        left -= whole.seconds
        whole = next_tuning(last[: len(whole.candidates)], allowance(left, epoch, other, folds=5))
    assert not whole.candidates[0].on_first_fold and whole.seconds <= left + 1e-6


def test_a_few_more_epochs_are_not_worth_a_run(scored):
    last = [scored([True] * 10, epochs=8)]
    assert next_tuning(last, allowance(5 + 10 * 11)) is None
    assert next_tuning(last, allowance(5 + 10 * 12 + 1)).candidates[0].tuning.epochs == 12


def test_a_base_that_takes_more_than_half_of_the_time_left_waits():
    heads = [Candidate(BASE, "linear"), Candidate(BASE, "svm")]
    assert next_heads(heads, 30.0, float("inf")).candidates == tuple(heads)
    assert next_heads(heads, 30.0, 59.0) is None
    assert next_heads(heads, 30.0, 61.0) is not None


def test_bases_to_fine_tune_are_the_cheapest_and_those_with_the_best_heads(scored):
    heads = [scored([True] * 60 + [False] * 40, size=64), scored([True] * 90 + [False] * 10, size=224)]
    worse = scored([True] * 70 + [False] * 30, size=128)
    best = scored([True] * 99 + [False], size=96)

    def pooled(pooling):
        return replace(best, candidate=replace(best.candidate, base=replace(best.candidate.base, pooling=pooling)))

    def sought(*more, listed=()):
        return [(base.image_size, base.pooling) for base in with_best_heads([*heads, worse, *more], listed)]

    assert sought() == [(224, "average")]
    all_stages = [pooled("layers"), pooled("layers_in_quarters")]
    assert sought(*all_stages) == [], "no base at 96 pixels is listed that pools the last map only"
    last_map = replace(best.candidate.base, pooling="average"), replace(best.candidate.base, pooling="quarters")
    assert sought(*all_stages, listed=last_map) == [(96, "average")]
    assert sought(*all_stages, pooled("quarters"), listed=last_map) == [(96, "quarters")]
    assert [base.image_size for base in cheapest(heads, lambda base: float(base.image_size))] == [64]
    assert cheapest(all_stages, lambda base: 1.0) == []


@given(st.floats(0, 10_000), SECONDS, st.floats(0, 1000))
def test_ways_on_preferred_bases_come_first_where_the_time_is_enough(left, epoch, features):
    large = Base("efficientnet_lite2", 224)
    dear = [replace(way, base=large) for way in ways(2)]

    def seconds(way, epochs):
        return (5.0 + epoch * epochs) * (1 if way.base != large else 4 if way.tuning.lr == dear[-1].tuning.lr else 3)

    allowed = Allowance(left, 1, 15, seconds, base_seconds=lambda base: features if base == large else 0.0)
    enough = allowed.is_enough(dear)
    assert enough == (features + seconds(dear[-1], ENOUGH_EPOCHS) <= left * 2 / 3)
    planned = first_tuning([*ways(2), *dear], allowed, [large] if enough else [])
    if planned is None:
        assert left < seconds(ways(1)[0], 1)
        return
    assert (planned.candidates[0].base == large) == enough
    on_large = sum(one.base == large for one in planned.candidates)
    taken = sum(seconds(one, one.tuning.epochs) for one in planned.candidates) + features * (on_large > 0)
    assert planned.seconds == pytest.approx(taken) and planned.seconds <= left + 1e-6


def test_speeds_come_from_runs_that_computed_and_not_from_a_full_cache():
    product = 1e-11
    work = Work(forward=1e12, epoch=1e13, epochs=2)
    cached = Measured("a", True, work, forward_seconds=0.5, training_seconds=600.0, seconds=610.0)
    assert speed_of("a", True, [], product) == Speed(4e-11, pytest.approx(6e-11))
    assert speed_of("a", True, [cached], product) == Speed(4e-11, 3e-11, tuning_overhead=9.5)
    measured = replace(cached, forward_seconds=50.0)
    assert speed_of("a", True, [cached, measured], product).forward == 5e-11
    assert speed_of("b", True, [measured], product).forward == 5e-11, "another backbone's is better than none"


def test_a_speed_of_depthwise_convolutions_says_nothing_about_dense_ones():
    product = 1e-11
    slow = Measured("a", True, Work(1e12, 0.0, 0), forward_seconds=70.0, training_seconds=0.0, seconds=80.0)
    assert speed_of("b", True, [slow], product).forward == 7e-11
    assert speed_of("b", False, [slow], product).forward == product
    networks = [
        Network(backbone_rows(name), (), (224, 224, 3))
        for name in ("efficientnet_lite0", "xception", "vgg16", "resnet50")
    ]
    assert [*map(has_depthwise, networks)] == [True, True, False, False]


def test_work_is_that_of_the_features_of_a_banks_variants_and_not_of_fresh_ones():
    config = load_config("search")
    config.schedule = ("tune",)
    config.stages.tune.freeze = "below:block5_conv1"
    config.model.backbone = "vgg16"
    network = build_network(with_base(checked(config), Base("vgg16", 64)), DataFacts(3, (64, 64, 3)))

    def forward(**augment):
        config.augment.update(augment)
        sizes = {"train": 100, "validation": 10}
        return [
            run_work(checked(config), network, sizes, has_features=False, has_prefixes=known, is_tested=False).forward
            for known in (False, True)
        ]

    of_one = prefix_flops(network, "block4_pool", 100)
    (fresh, fresh_again), (bank, bank_again), (plain, plain_again) = (
        forward(),
        forward(bank=3),
        forward(preset="none"),
    )
    assert (plain - fresh, bank - fresh) == (of_one, 3 * of_one)
    # another fold finds what the first one computed, of all images, and of validation where variants are fresh
    assert fresh_again == fresh
    assert plain - plain_again == of_one + prefix_flops(network, "block4_pool", 10)
    assert bank - bank_again == 3 * of_one + prefix_flops(network, "block4_pool", 10)


def test_what_was_shown_to_be_worse_waits(scored):
    """Averages on one backbone, shown to be worse by McNemar's test or not; the other bases are of another backbone."""
    quarters = replace(BASE, pooling="layers_in_quarters")
    others = [Base("vgg16", 224), Base("vgg16", 224, "layers_in_quarters"), Base("vgg16", 224, "quarters")]

    def heads(base, right):
        return replace(scored([True] * right + [False] * (100 - right)), candidate=Candidate(base, "svm"))

    lost = [heads(BASE, 30), heads(quarters, 90)]
    assert [has_lost(base, lost) for base in others] == [True, False, False]
    # the best of its heads counts
    assert not any(has_lost(base, [*lost, heads(BASE, 90)]) for base in others)
    assert not any(has_lost(base, [heads(BASE, 85), heads(quarters, 90)]) for base in others)  # p = 0.06
    assert has_lost(others[0], [heads(BASE, 84), heads(quarters, 90)])  # p = 0.03
    assert not any(has_lost(base, [heads(BASE, 30), heads(replace(quarters, image_size=224), 90)]) for base in others)
    fine_tuned = replace(heads(quarters, 90), candidate=Candidate(quarters, tuning=Tuning("none", 1e-3, 1)))
    assert not any(has_lost(base, [heads(BASE, 30), fine_tuned]) for base in others)


def test_what_runs_take_besides_operations_is_measured_for_heads_and_for_fine_tuning():
    head = Measured("a", True, Work(1e12, 0.0, 0, runs=5), forward_seconds=10.0, training_seconds=0.0, seconds=30.0)
    speed = speed_of("b", True, [head], 1e-11)
    assert (speed.head_overhead, speed.tuning_overhead) == (4.0, OVERHEAD_SECONDS)
    tuned = Measured("a", True, Work(1e12, 1e12, 2, runs=5), forward_seconds=10.0, training_seconds=12.0, seconds=30.0)
    stopped_early = replace(tuned, work=Work(1e12, 1e12, 4, runs=5), training_seconds=24.0)
    assert speed_of("b", True, [tuned], 1e-11).tuning_overhead == pytest.approx(1.6)
    assert speed_of("b", True, [stopped_early], 1e-11).tuning_overhead == 0.0


def test_every_fold_takes_the_time_that_a_run_takes_besides_its_operations():
    one = Work(forward=1e12, epoch=1e13, epochs=2)
    speed = Speed(1e-12, 1e-12)
    assert speed.seconds(one) == OVERHEAD_SECONDS + 1 + 20
    assert speed.seconds(replace(one, runs=5)) == 5 * OVERHEAD_SECONDS + 1 + 20


def test_with_folds_a_single_way_is_tried_on_the_first_one_before_its_epochs_are_planned(scored):
    allowed = allowance(900.0, folds=5)
    first = first_tuning(ways(1), allowed)
    assert [(one.on_first_fold, one.tuning.epochs) for one in first.candidates] == [(True, 1)] and first.seconds == 15
    last = [replace(scored([True] * 5), candidate=first.candidates[0])]
    # measured, an epoch takes twice as long: 25 s besides epochs of 100 s
    final = next_tuning(last, allowance(885.0, epoch=20.0, folds=5))
    assert [(one.on_first_fold, one.tuning.epochs) for one in final.candidates] == [(False, 8)]
    assert not first_tuning(ways(1), allowance(80.0, folds=5)).candidates[0].on_first_fold, "no time for a trial"

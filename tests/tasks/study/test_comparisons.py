"""Statistics of masks against statsmodels, scipy and their laws, and the sentences that follow from them."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vision_transfer.config import checked, default_config, stage, with_stages
from vision_transfer.errors import UserError
from vision_transfer.metrics.classification import wilson_interval
from vision_transfer.metrics.significance import mcnemar_exact, paired_over_repeats
from vision_transfer.runs.folder import RunFolder
from vision_transfer.runs.manifest import write_result
from vision_transfer.tasks.study.comparisons import MaskRuns, compare, mask_runs
from vision_transfer.tasks.study.conclusions import conclusions
from vision_transfer.tasks.study.plan import PlannedRun
from vision_transfer.tasks.study.runs import FinishedRun
from vision_transfer.tasks.study.statistics import holm, summarised

# imports and a busy machine take longer than hypothesis allows
unhurried = settings(max_examples=60)
p_values = st.lists(st.floats(0, 1), min_size=1, max_size=12)


def outcomes(rng, shape, share=0.8):
    return rng.random(shape) < share


def mask(name, validation, right, trainable=1000, seconds=10.0, validation_examples=300):
    correct = np.atleast_2d(right)
    seeds = tuple(range(len(correct)))
    run_seconds = tuple(np.broadcast_to(seconds, len(seeds)).tolist())
    return MaskRuns(name, seeds, correct, (validation,) * len(seeds), run_seconds, trainable, validation_examples)


def with_mistakes(count, seeds=3, images=400, first=0):
    """All right but `count` images from `first` on, in every seed."""
    right = np.ones((seeds, images), bool)
    right[:, first : first + count] = False
    return right


def test_one_repeat_is_mcnemars_exact_test_of_statsmodels():
    contingency = pytest.importorskip("statsmodels.stats.contingency_tables")
    rng = np.random.default_rng(0)
    for images in (5, 50, 400):
        first, second = outcomes(rng, (1, images)), outcomes(rng, (1, images), 0.7)
        table = [
            [np.sum(first & second), np.sum(first & ~second)],
            [np.sum(~first & second), np.sum(~first & ~second)],
        ]
        expected = contingency.mcnemar(table, exact=True).pvalue
        assert paired_over_repeats(first, second) == pytest.approx(expected)


def test_several_repeats_are_scipys_permutation_test_over_all_signs():
    from scipy.stats import permutation_test

    rng = np.random.default_rng(1)
    for seed_count in (2, 3):
        first, second = outcomes(rng, (seed_count, 11), 0.9), outcomes(rng, (seed_count, 11), 0.5)
        expected = permutation_test(
            (first.sum(axis=0), second.sum(axis=0)),
            lambda a, b, axis: np.sum(a - b, axis=axis),
            permutation_type="samples",
            n_resamples=np.inf,
        )
        assert paired_over_repeats(first, second) == pytest.approx(expected.pvalue)


def test_the_same_repeat_three_times_is_no_more_evidence_than_once():
    """Pooling the repeats' disagreements as if they were other images would."""
    rng = np.random.default_rng(2)
    first, second = outcomes(rng, (1, 200), 0.95), outcomes(rng, (1, 200), 0.90)
    once = paired_over_repeats(first, second)
    assert paired_over_repeats(np.repeat(first, 3, axis=0), np.repeat(second, 3, axis=0)) == pytest.approx(once)
    assert mcnemar_exact(3 * int(np.sum(first & ~second)), 3 * int(np.sum(~first & second))) < once / 2


@unhurried
@given(st.integers(1, 4), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_paired_test_is_symmetric_and_a_probability(seed_count, images, seed):
    rng = np.random.default_rng(seed)
    first, second = outcomes(rng, (seed_count, images), 0.7), outcomes(rng, (seed_count, images), 0.6)
    p_value = paired_over_repeats(first, second)
    assert 0 < p_value <= 1
    assert p_value == pytest.approx(paired_over_repeats(second, first))
    assert paired_over_repeats(first, first) == 1
    shuffled = rng.permutation(images)
    assert p_value == pytest.approx(paired_over_repeats(first[:, shuffled], second[:, shuffled]))


def test_the_paired_test_keeps_its_level_for_dependent_repeats():
    """Equally good masks, hard and easy images, 3 seeds: rejections at 5 % are about 5 %, pooled ones are more."""
    rng = np.random.default_rng(3)
    rejected = pooled = 0
    trials = 300
    for _ in range(trials):
        # each mask has its own easy images, which all its seeds get right
        own = [np.where(rng.random(150) < 0.7, 0.98, 0.3) for _ in range(2)]
        first, second = (rng.random((3, 150)) < chance for chance in own)
        rejected += paired_over_repeats(first, second) < 0.05
        pooled += mcnemar_exact(int(np.sum(first & ~second)), int(np.sum(~first & second))) < 0.05
    assert rejected / trials < 0.09
    assert pooled / trials > 0.12


def test_holm_is_that_of_statsmodels():
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    rng = np.random.default_rng(4)
    for count in (1, 2, 7, 15):
        values = rng.random(count) ** 3
        np.testing.assert_allclose(holm(values), multitest.multipletests(values, method="holm")[1], rtol=1e-12)


@unhurried
@given(p_values)
def test_holm_is_monotone_and_never_below_the_value(values):
    adjusted = holm(values)
    order = np.argsort(values, kind="stable")
    assert np.all(np.diff(np.asarray(adjusted)[order]) >= 0)
    assert all(value <= after <= 1 for value, after in zip(values, adjusted, strict=True))
    assert min(adjusted) == pytest.approx(min(1.0, min(values) * len(values)))


@unhurried
@given(p_values, st.randoms(use_true_random=False))
def test_holm_does_not_depend_on_order(values, random):
    order = list(range(len(values)))
    random.shuffle(order)
    adjusted = holm(values)
    assert holm([values[place] for place in order]) == [adjusted[place] for place in order]


def test_intervals_are_those_of_scipy_and_statsmodels():
    from scipy import stats

    proportion = pytest.importorskip("statsmodels.stats.proportion")
    shares = [0.95, 0.97, 0.965]
    expected = stats.t.interval(0.95, 2, np.mean(shares), stats.sem(shares))
    assert summarised(shares).interval == pytest.approx(expected)
    for successes, trials in ((0, 10), (47, 50), (967, 1000)):
        expected = proportion.proportion_confint(successes, trials, method="wilson")
        assert wilson_interval(successes, trials) == pytest.approx(expected)


def test_seeds_do_not_count_as_test_images():
    found = mask("a", 0.9, with_mistakes(20))
    assert found.test_interval == pytest.approx(wilson_interval(380, 400))
    assert (found.test.mean, found.test.count) == (pytest.approx(0.95), 3)


def test_validation_chooses_and_the_test_plays_no_part():
    best_on_test = mask("lucky", 0.90, with_mistakes(0))
    chosen = mask("chosen", 0.91, with_mistakes(40))
    found = compare([best_on_test, chosen])
    assert found.chosen.name == "chosen"
    assert found.contrasts[0].difference == pytest.approx(0.1)
    assert found.contrasts[0].distinguishable
    light = mask("light", 0.91, with_mistakes(50), trainable=10)
    assert compare([best_on_test, chosen, light]).chosen is light


def test_means_that_differ_by_rounding_are_equal():
    """191, 192 and 190 right of 200, and 190, 191 and 192: in floating point 0.9550000000000001 and 0.955."""
    masks = [mask(name, 0.9, with_mistakes(5), trainable=count) for name, count in (("none", 10), ("all", 1))]
    accuracies = [(0.955, 0.96, 0.95), (0.95, 0.955, 0.96)]
    several = [replace(one, validation_accuracies=values) for one, values in zip(masks, accuracies, strict=True)]
    assert several[0].validation.mean > several[1].validation.mean
    assert compare(several).chosen.name == "all"


def test_sentences():
    found = conclusions(
        [
            mask("below:block5_conv1", 0.97, with_mistakes(12), 7_000, seconds=10),
            mask("below:block4_conv1", 0.96, with_mistakes(13), 13_000, seconds=21),
            mask("all", 0.90, with_mistakes(60), 100, seconds=5),
            mask("only:block5_conv3", 0.95, with_mistakes(12), 900, seconds=8),
        ],
        "with 300 training images",
    )
    text = "\n".join(found)
    assert found[0].startswith("With 300 training images, validation chooses below:block5_conv1: 0.970 on 300")
    assert "reaches 0.970" in found[1] and "for the 400 test images (Wilson)" in found[1]
    assert (
        "below:block4_conv1 is not distinguishable from below:block5_conv1 (-0.3 points on the test split, p = 1)"
        in text
    )
    assert "and costs 2.1 times as much." in text
    assert (
        "all is worse than below:block5_conv1 (-12.0 points on the test split, p < 0.0001), and costs 0.5 times" in text
    )
    assert "The cheapest mask that is not shown to be worse is only:block5_conv3: 0.8 of the time" in text
    assert "Holm's correction for 3 comparisons" in found[-1]
    assert "optimistic" not in text


def test_where_the_cheapest_is_chosen_costs_are_plain_numbers():
    found = conclusions(
        [
            mask("all", 0.97, with_mistakes(12), 100, seconds=1),
            mask("none", 0.96, with_mistakes(12), 15_000, seconds=143),
            mask("below:block2_conv1", 0.95, with_mistakes(12), 14_000, seconds=1234),
        ]
    )
    text = "\n".join(found)
    assert "costs 140 times as much" in text and "costs 1,200 times as much" in text
    assert "No mask is cheaper than all." in text


def test_it_is_said_when_all_cheaper_masks_are_worse():
    masks = [
        mask("none", 0.97, with_mistakes(2), 15_000, seconds=20),
        mask("all", 0.9, with_mistakes(99), 100, seconds=1),
    ]
    assert "All cheaper masks are shown to be worse than none." in conclusions(masks)


def test_seeds_that_disagree_are_no_difference_between_masks():
    worse_once = with_mistakes(0)
    worse_once[0, :200] = False
    better_else = np.ones((3, 400), bool)
    better_else[1:, 399] = False
    found = conclusions([mask("steady", 0.9, better_else), mask("moody", 0.8, worse_once)])
    assert "moody is not distinguishable from steady" in found[2]
    assert "the seeds disagree: -50.0 points to +0.2 points" in found[2]


def test_a_tiny_test_split_adds_validation_labelled_as_such():
    small = [mask(name, share, with_mistakes(3, images=50)) for name, share in (("a", 0.98), ("b", 0.97))]
    text = "\n".join(conclusions(small))
    assert "The test split has only 50 images" in text
    assert "Validation accuracies on 300 images: a 0.980, b 0.970" in text and "They are optimistic" in text


def test_one_seed_says_so():
    found = conclusions([mask("a", 0.9, with_mistakes(5, seeds=1)), mask("b", 0.8, with_mistakes(9, seeds=1))])
    assert "one seed, so the spread over seeds is unknown" in found[1]
    assert found[-1].startswith("McNemar's exact test; p of one comparison.")


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([mask("a", 0.9, with_mistakes(1))], "at least two masks"),
        ([mask("a", 0.9, with_mistakes(1)), mask("b", 0.9, with_mistakes(1, seeds=2))], r"seeds 0, 1 and 0, 1, 2"),
        ([mask("a", 0.9, with_mistakes(1)), mask("b", 0.9, with_mistakes(1, images=50))], "50 and 400 images"),
    ],
)
def test_masks_that_cannot_be_compared_are_refused(groups, message):
    with pytest.raises(UserError, match=message):
        conclusions(groups)


def test_a_run_that_was_held_up_does_not_change_the_cost_of_a_mask():
    held_up = mask("all", 0.90, with_mistakes(60), 100, seconds=(500.0, 5.0, 5.0))
    (contrast,) = compare([mask("none", 0.97, with_mistakes(12), seconds=10), held_up]).contrasts
    assert contrast.cost == 0.5


@pytest.mark.parametrize(("steps", "images"), [(None, 30), (2, 16), (9, 30)])
def test_runs_are_read_from_their_folders(tmp_path, steps, images):
    """The images of validation are those that the tested stage was validated on."""
    config = with_stages(default_config(), head=stage(validation_steps=steps), more=stage())
    config.eval_batch_size = 8
    result = {
        "parameters": {"trainable": 7},
        "dataset": {"sizes": {"validation": 30}},
        "stages": [
            {"validation": {"accuracy": 0.8}, "seconds": 1.0},
            {"validation": {"accuracy": 0.7}, "seconds": 3.0},
        ],
        "tested": {"stage": "head", "epoch": 4, "validation": {"accuracy": 0.9}},
    }
    np.savez(tmp_path / "predictions.npz", logits=np.float32([[1], [-1], [2]]), labels=np.int32([1, 1, 1]))
    write_result(RunFolder(tmp_path), "digest", result)
    finished = FinishedRun(PlannedRun("run", checked(config), {"freeze": "all", "seed": 3}), tmp_path, result)
    found = mask_runs("all", [finished])
    assert (found.name, found.trainable, found.validation_examples) == ("all", 7, images)
    assert (found.seeds, found.run_seconds) == ((3,), (4.0,))
    assert found.correct.tolist() == [[True, False, True]]
    assert found.validation_accuracies == (0.9,)
    whole = (tmp_path / "predictions.npz").read_bytes()
    (tmp_path / "predictions.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"predictions\.npz: is damaged or was edited"):
        mask_runs("all", [finished])
    write_result(RunFolder(tmp_path), "digest", result)
    with pytest.raises(UserError, match=r"predictions\.npz: cannot be read"):
        mask_runs("all", [finished])

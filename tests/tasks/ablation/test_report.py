"""Tables, figures and conclusions have the numbers of the runs."""

import csv
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from vision_transfer.tasks.ablation.all_runs import work
from vision_transfer.tasks.ablation.estimate import seconds_per_flop
from vision_transfer.tasks.ablation.figures import (
    blocks_figure,
    cost_figure,
    depth_figure,
    draw_figures,
    points,
    series,
)
from vision_transfer.tasks.ablation.grid import ablation
from vision_transfer.tasks.ablation.sweep import SweepFolder, finished_run, write_plan
from vision_transfer.tasks.ablation.tables import latex, write_tables
from vision_transfer.tasks.study.conclusions import conclusions_by_setting
from vision_transfer.tasks.study.runs import warn_of_several_conditions
from vision_transfer.tasks.study.statistics import pareto_front
from vision_transfer.tasks.study.tables import grouped


@pytest.fixture
def finished(grid, networks, options, launcher, screen):
    study = ablation(grid(sizes=(100, 0), masks=("all", "below:block5_conv2", "every_block", "none")), networks, 2000)
    folder = SweepFolder(options.workdir)
    write_plan(study, folder, {})
    work(study, folder, options, launcher, screen)
    return [finished_run(run, folder, None) for run in study.runs]


@pytest.fixture
def groups(finished):
    return grouped(finished)


@pytest.fixture
def found(groups, networks):
    return points(groups, networks)


def test_a_point_is_the_mean_over_seeds_with_student_s_interval(groups, finished):
    accuracies = [one.result["test"]["accuracy"] for one in finished if one.run.labels["mask"] == "all"][:2]
    point = groups[0]
    assert point.labels == {"mask": "all", "training images": 100}
    low, high = stats.t.interval(0.95, 1, loc=np.mean(accuracies), scale=stats.sem(accuracies))
    np.testing.assert_allclose(point.test.interval, (low, high))


def test_a_point_has_the_wilson_interval_of_its_images(groups):
    for point in groups:
        expected = stats.binomtest(round(100 * point.test.mean), 100).proportion_ci(method="wilson")
        np.testing.assert_allclose(point.test_interval, (expected.low, expected.high), rtol=1e-12)


def test_a_run_that_was_suspended_does_not_change_the_estimated_speed(finished):
    def taking(one, seconds):
        stages = [dict(stage, seconds=seconds / len(one.result["stages"])) for stage in one.result["stages"]]
        return replace(one, result=one.result | {"stages": stages})

    of_one_mask = [one for one in finished if one.run.labels["mask"] == "all"][:1] * 3
    slow = [taking(one, seconds) for one, seconds in zip(of_one_mask, (10.0, 11.0, 9000.0), strict=True)]
    assert seconds_per_flop(slow, {one.run.name: 44 for one in slow}) == pytest.approx(11 / 44)


def test_ece_is_that_of_the_predictions(groups, finished):
    # All confidences are sigmoid(2); a share `accuracy` of these images is right.
    confidence = 1 / (1 + np.exp(-2))
    accuracies = [one.result["test"]["accuracy"] for one in finished if one.run.labels["mask"] == "all"][:2]
    expected = sorted(abs(confidence - accuracy) for accuracy in accuracies)
    np.testing.assert_allclose([groups[0].ece.smallest, groups[0].ece.largest], expected, atol=1e-6)


def test_the_tables_have_a_row_per_run_and_per_group(groups, finished, tmp_path):
    files = write_tables(finished, groups, [["One.", "Two."], ["Three."]], tmp_path)
    names = ["runs.csv", "table.csv", "table.md", "table.tex", "conclusions.md"]
    assert [file.name for file in files] == names
    assert files[4].read_text(encoding="utf-8") == "- One.\n- Two.\n\n- Three.\n"
    with files[0].open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["test accuracy"]) for row in rows] == [one.result["test"]["accuracy"] for one in finished]
    with files[1].open(encoding="utf-8", newline="") as stream:
        means = [float(row["test accuracy"]) for row in csv.DictReader(stream)]
    assert means == [group.test.mean for group in groups]
    assert len(means) * 2 == len(rows)


def test_markdown_and_latex_have_the_same_cells(groups, finished, tmp_path):
    write_tables(finished, groups, [], tmp_path)
    markdown, latex = (tmp_path / name for name in ("table.md", "table.tex"))
    table = [line.strip("| ").split(" | ") for line in markdown.read_text().splitlines() if line.startswith("|")]
    rows = [line.removesuffix(r" \\").split(" & ") for line in latex.read_text().splitlines() if line.endswith(r"\\")]
    plain = [[cell.replace("\\_", "_").replace("--", "–") for cell in row] for row in rows]
    assert plain == [table[0], *table[2:]]
    assert r"below:block5\_conv2" in latex.read_text()
    assert "{:.4f} to {:.4f}".format(*groups[0].test_interval) in markdown.read_text()


def test_what_latex_would_read_as_a_command_is_written_as_text():
    table = latex(["mask"], [[r"regex:block5_conv\d/^a{2}~.*"]], 1)
    assert r"regex:block5\_conv\textbackslash{}d/\textasciicircum{}a\{2\}\textasciitilde{}.*" in table


def test_there_is_a_paragraph_per_size_about_the_mask_that_validation_chooses(finished):
    paragraphs = conclusions_by_setting(finished)
    assert len(paragraphs) == 2
    # The fake runs' accuracy depends on the length of the spec; of equals the first in the plan is chosen.
    best = max((one.run.labels["mask"] for one in finished), key=lambda spec: len(spec) % 40)
    for paragraph, size in zip(paragraphs, ("100", "2,000"), strict=True):
        assert paragraph[0].startswith(f"With {size} training images, validation chooses {best}: ")


def test_missing_runs_are_named_instead_of_a_conclusion(finished):
    first, *others = conclusions_by_setting(finished[1:])
    assert len(first) == 1 and first[0].startswith("No conclusion with 100 training images: ")
    assert "finish the runs of all seeds first" in first[0]
    assert all(len(paragraph) > 1 for paragraph in others)


def test_the_depth_figure_has_the_cuts_and_a_line_per_size(found):
    axes = depth_figure(found, lambda group: group.test, "test accuracy", "title").axes[0]
    names = [text.get_text() for text in axes.get_xticklabels()]
    assert names == ["head only", "block5_conv2", "block5_conv1", "everything"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["100 images", "2,000 images"]
    heights = axes.containers[0].lines[0].get_ydata()
    cuts = [one for mask, one in found if one.labels["training images"] == 100 and mask.depth is not None]
    np.testing.assert_allclose(sorted(heights), sorted(one.test.mean for one in cuts))


def test_a_figure_of_one_seed_claims_no_interval(found):
    def title_of(shown):
        return depth_figure(shown, lambda group: group.test, "test accuracy", "title").axes[0].get_title()

    assert title_of(found) == "title: mean and 95 % t interval"
    alone = [(mask, replace(group, runs=group.runs[:1])) for mask, group in found]
    assert title_of(alone) == "title: single runs"


def test_the_head_alone_begins_the_lines_of_its_size_at_all_rates(grid, networks, options, launcher, screen):
    study = ablation(grid(masks=("all", "none"), learning_rates=(1e-5, 1e-4)), networks, 2000)
    folder = SweepFolder(options.workdir / "rates")
    write_plan(study, folder, {})
    work(study, folder, options, launcher, screen)
    lines = series(points(grouped([finished_run(run, folder, None) for run in study.runs]), networks))
    assert {name: [mask.spec for mask, _ in line] for name, line in lines.items()} == {
        "learning rate 1e-05, 2,000 images": ["all", "none"],
        "learning rate 0.0001, 2,000 images": ["all", "none"],
    }


def test_the_heat_map_has_a_cell_per_block_and_size(found):
    axes = blocks_figure(found, "title").axes[0]
    assert [text.get_text() for text in axes.get_xticklabels()] == [f"block{number}" for number in range(1, 6)]
    values = axes.images[0].get_array()
    assert values.shape == (2, 5)
    of_100 = [(mask, one) for mask, one in found if one.labels["training images"] == 100]
    alone = {mask.block: one.test.mean for mask, one in of_100 if mask.spec.startswith("only")}
    np.testing.assert_allclose(values[0], [alone[f"block{number}"] for number in range(1, 6)])


def test_the_pareto_front_is_named_on_both_panels(found):
    figure = cost_figure(found, "title")
    costs = (lambda mask, _: mask.trainable, lambda _, group: group.training_seconds)
    for axes, cost in zip(figure.axes, costs, strict=True):
        named = set()
        for line in series(found).values():
            front = pareto_front([cost(*point) for point in line], [one.test.mean for _, one in line])
            named |= {line[place][0].short_name for place in front}
        assert {text.get_text() for text in axes.texts} == named
    # No mask trains fewer parameters.
    assert "head only" in {text.get_text() for text in figure.axes[0].texts}


def test_figures_are_written_where_there_is_something_to_draw(found, finished, networks, tmp_path):
    names = [file.name for file in draw_figures(found, tmp_path, "title")]
    assert names == ["depth.png", "validation.png", "calibration.png", "cost.png", "blocks.png"]
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in names)
    one_seed = [one for one in finished if one.run.labels["seed"] == 0]
    one_run_each = [(mask, one) for mask, one in points(grouped(one_seed), networks) if not mask.block]
    assert [file.name for file in draw_figures(one_run_each, tmp_path, "title")] == names[:4]
    without = [
        replace(one, result=one.result | {"tested": {"stage": "head", "validation": {"accuracy": None}}})
        for one in one_seed
    ]
    names = [file.name for file in draw_figures(points(grouped(without), networks), tmp_path, "title")]
    assert "depth.png" in names and "validation.png" not in names


@given(
    st.lists(st.tuples(st.sampled_from([1.0, 2.0, 3.0, 4.0]), st.sampled_from([0.1, 0.2, 0.3])), min_size=1, max_size=9)
)
def test_only_the_choices_on_the_front_are_not_beaten(choices):
    front = pareto_front([cost for cost, _ in choices], [value for _, value in choices])

    def beaten(place):
        cost, value = choices[place]
        return any(c <= cost and v >= value and (c, v) != (cost, value) for c, v in choices)

    assert sorted(front) == [place for place in range(len(choices)) if not beaten(place)]


def test_runs_of_other_conditions_are_told_apart(finished, screen):
    one = replace(finished[0], result={"code_digest": "a", "versions": {"jax": "1"}, "device": "cpu"})
    warn_of_several_conditions([one, replace(one, result=dict(one.result))], screen)
    assert "numeric code" not in screen.console.file.getvalue()
    warn_of_several_conditions([one, replace(one, result=one.result | {"device": "gpu"})], screen)
    assert "not all done by the same numeric code" in " ".join(screen.console.file.getvalue().split())

"""The report of a study: intervals are those of scipy, tables can be read back, lines pass through the means."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from rich.console import Console
from scipy import stats

from vision_transfer.tasks.figures import save_png
from vision_transfer.tasks.study.figures import curves_figure
from vision_transfer.tasks.study.plan import PlannedRun
from vision_transfer.tasks.study.runs import FinishedRun
from vision_transfer.tasks.study.statistics import summarised
from vision_transfer.tasks.study.tables import CAPTION, COLUMNS, SCREEN_COLUMNS, cells_of, grouped, run_rows
from vision_transfer.tasks.tables import markdown_table, screen_table, write_csv

ACCURACIES = {("features", 100): (0.7, 0.72, 0.77), ("features", 1000): (0.8, 0.81, 0.83), ("scratch", 100): (0.6,)}


@pytest.fixture
def finished():
    runs = []
    for (method, size), accuracies in ACCURACIES.items():
        for seed, accuracy in enumerate(accuracies):
            result = {
                "tested": {"stage": "head", "validation": {"accuracy": accuracy + 0.01}},
                "test": {"accuracy": accuracy, "accuracy_ci95": [accuracy - 0.1, accuracy + 0.1], "examples": 50},
                "parameters": {"trainable": 4096},
                "seconds": {"total": 10.0 * (seed + 1)},
            }
            labels = {"method": method, "training images": size, "seed": seed}
            run = PlannedRun(f"{method} {size} {seed}", None, labels)
            runs.append(FinishedRun(run, Path("runs") / run.name, result))
    pretraining = PlannedRun("pretraining", None, {}, compared=False)
    return [FinishedRun(pretraining, Path("runs/p"), {}), *runs]


@pytest.mark.parametrize("values", [[0.7, 0.72, 0.77], [0.5, 0.9], list(np.linspace(0.6, 0.7, 11))])
def test_the_interval_is_scipy_s(values):
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    summary = summarised(values)
    np.testing.assert_allclose(summary.interval, expected, rtol=1e-12)
    np.testing.assert_allclose(summary.mean, np.mean(values))
    assert (summary.smallest, summary.largest, summary.count) == (min(values), max(values), len(values))


def test_an_interval_of_shares_ends_at_one():
    summary = summarised([0.9, 0.98, 0.98])
    assert summary.interval[1] > 1
    assert summary.share_interval == (summary.interval[0], 1.0)
    below, above = summary.reach
    assert (summary.mean - below, summary.mean + above) == pytest.approx(summary.share_interval)


def test_a_single_run_has_no_interval():
    assert summarised([0.5]).interval is None
    assert summarised([0.5]).share_interval is None
    assert summarised([0.5]).reach == (0, 0)


def test_runs_that_differ_in_the_seed_alone_are_one_group(finished):
    groups = grouped(finished)
    assert [tuple(group.labels.values()) for group in groups] == list(ACCURACIES)
    assert [group.test.count for group in groups] == [3, 3, 1]
    assert groups[0].test.mean == pytest.approx(0.73)
    assert groups[0].validation.mean == pytest.approx(0.74)
    assert groups[0].seconds == 20.0


def test_the_csv_reads_back_as_it_was_written(tmp_path, finished):
    rows = run_rows(finished)
    write_csv(rows, tmp_path / "runs.csv")
    with (tmp_path / "runs.csv").open(encoding="utf-8", newline="") as stream:
        read = list(csv.DictReader(stream))
    assert len(read) == 7  # the shared pretraining is no row
    assert [float(row["test accuracy"]) for row in read] == [row["test accuracy"] for row in rows]
    assert read[3]["folder"] == "runs/features 1000 0"


def test_the_markdown_table_has_a_row_per_group(finished):
    lines = markdown_table(*cells_of(grouped(finished), COLUMNS), 2, CAPTION).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[:5]]
    assert cells[0][:3] == ["method", "training images", "runs"]
    assert len({len(row) for row in cells}) == 1
    assert cells[3][:3] == ["features", "1,000", "3"]
    low, high = stats.ttest_1samp([0.8, 0.81, 0.83], 0).confidence_interval(0.95)
    assert cells[3][3] == f"0.8133 ({low:.4f} to {high:.4f})"
    assert cells[3][4] == "0.8000–0.8300"
    assert cells[4][3] == "0.6000"  # one run: no interval
    assert "95 % t interval" in lines[-1]


def test_the_screen_has_the_test_s_intervals_on_80_columns(finished):
    console = Console(file=io.StringIO(), width=80)
    header, rows = cells_of(grouped(finished), COLUMNS)
    console.print(screen_table("curve", header, rows, 2, CAPTION, SCREEN_COLUMNS))
    written = console.file.getvalue()
    assert "0.8133 (0.7754 to 0.8513)" in written
    assert "…" not in written


def test_the_figure_has_a_line_per_variant_through_its_means(finished, tmp_path):
    groups = grouped(finished)
    figure = curves_figure(groups, "training images", "method", "a title")
    (axes,) = figure.axes
    features, scratch = axes.containers
    np.testing.assert_allclose(features.lines[0].get_ydata().astype(float), [0.73, 2.44 / 3])
    np.testing.assert_allclose(features.lines[0].get_xdata().astype(float), [100, 1000], rtol=0.05)
    np.testing.assert_allclose(scratch.lines[0].get_ydata().astype(float), [0.6])
    low, high = summarised([0.7, 0.72, 0.77]).interval
    bars = features.lines[2][0].get_segments()[0]
    np.testing.assert_allclose(bars[:, 1], [low, high])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["features", "scratch"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["100", "1,000"]
    save_png(figure, tmp_path / "figures" / "curves.png")
    assert imread(tmp_path / "figures" / "curves.png").std() > 0.01

"""The task `transfer_curve`: plan, runs, tables and figure in the study's folder."""

from collections.abc import Sequence
from pathlib import Path

from vision_transfer.config import Config
from vision_transfer.data.load import load_dataset
from vision_transfer.runs.folder import default_folder
from vision_transfer.runs.prepare import RunOptions
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.files import replaced_file
from vision_transfer.tasks.figures import draw_or_say_why, save_png
from vision_transfer.tasks.study.figures import curves_figure
from vision_transfer.tasks.study.plan import SIZE, Study, check_study, with_fingerprints
from vision_transfer.tasks.study.runs import FinishedRun, execute, finished_runs
from vision_transfer.tasks.study.tables import (
    COLUMNS,
    SCREEN_COLUMNS,
    caption,
    cells_of,
    grouped,
    markdown_table,
    run_rows,
    screen_table,
    write_csv,
)
from vision_transfer.tasks.study.transfer_curve import METHOD, transfer_curve
from vision_transfer.tasks.train import task

RUNS_TABLE, TABLE, FIGURE = "runs.csv", "table.md", "curves.png"


def run_transfer_curve(config: Config, options: RunOptions, screen: Screen) -> Path:
    """Does a transfer curve, or what remains of it; returns its folder.

    `runs.csv` has a row per run, `table.md` a row per method and size, `curves.png` a line per method.

    Raises:
        UserError: an invalid config or unusable data.
        Stopped: asked to stop; the same command resumes.
    """
    dataset = load_dataset(config.dataset, cache_dir=options.cache_dir, screen=screen)
    study = transfer_curve(config, len(dataset.train))
    check_study(study)
    study = with_fingerprints(study, options.cache_dir, screen)
    folder = options.workdir or default_folder(study.name, study.digest).path
    say_plan(study, folder, finished_runs(study, folder, options), screen)
    finished = execute(study, folder, options, task.train, screen)
    write_report(study, finished, folder, screen)
    return folder


def say_plan(study: Study, folder: Path, finished: dict[str, FinishedRun], screen: Screen) -> None:
    """Shows all runs of a study before the first one starts, and which are finished already."""
    rows = [[run.name, run.start or "random weights", "yes" if run.name in finished else ""] for run in study.runs]
    screen.say(screen_table(f"The plan of {study.name}", ("Run", "Starts from", "Finished"), rows, 3))
    remaining = len(study.runs) - len(finished)
    screen.say(f"{len(study.runs)} runs, {remaining} remaining. Tables and figure: {folder}; runs: runs/.")


def write_report(study: Study, finished: Sequence[FinishedRun], folder: Path, screen: Screen) -> None:
    """Writes the tables and the figure of a transfer curve, and shows a table."""
    groups = grouped(finished, study.over)
    header, rows = cells_of(groups, COLUMNS)
    labels, note = len(groups[0].labels), caption(study.over)
    write_csv(run_rows(finished), folder / RUNS_TABLE)
    with replaced_file(folder / TABLE) as temporary:
        temporary.write_text(markdown_table(header, rows, labels, note), encoding="utf-8")
    title = f"{study.name.replace('_', ' ')}: mean and 95 % t interval"
    file = folder / FIGURE
    draw_or_say_why(file, lambda: save_png(curves_figure(groups, SIZE, METHOD, title), file), screen)
    screen.say()
    screen.say(screen_table(study.name, header, rows, labels, note, SCREEN_COLUMNS))
    screen.say(f"Tables and figure in {folder}: {RUNS_TABLE}, {TABLE}, {FIGURE}")

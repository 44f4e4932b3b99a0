"""The tasks that are studies: plan, runs, tables and figure in a folder of the study's own."""

from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.markup import escape
from rich.table import Table

from vision_transfer.config import Config
from vision_transfer.data.load import load_dataset
from vision_transfer.runs.build import data_request
from vision_transfer.runs.folder import default_folder
from vision_transfer.runs.prepare import RunOptions
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.files import replaced_file
from vision_transfer.tasks.study.data import with_fingerprints
from vision_transfer.tasks.study.figures import draw_curves
from vision_transfer.tasks.study.plan import Study, check_study
from vision_transfer.tasks.study.runs import FinishedRun, Launch, execute, finished_runs
from vision_transfer.tasks.study.tables import grouped, markdown_table, run_rows, screen_table, write_csv
from vision_transfer.tasks.study.transfer_curve import METHOD, SIZE, transfer_curve
from vision_transfer.tasks.train import task

RUNS_TABLE, TABLE, FIGURE = "runs.csv", "table.md", "curves.png"
LAUNCH: dict[str, Launch] = {"train": task.train}


def run_transfer_curve(config: Config, options: RunOptions, screen: Screen) -> Path:
    """Runs a transfer curve whole, or what is left of it; returns its folder.

    `runs.csv` has a row per run, `table.md` a row per method and size, `curves.png` the three lines.

    Raises:
        UserError: a config or data that cannot be used.
        Stopped: asked to stop; the same command goes on from there.
    """
    dataset = load_dataset(data_request(config), cache_dir=options.cache_dir, screen=screen)
    study = transfer_curve(config, len(dataset.train))
    check_study(study)
    study = with_fingerprints(study, options.cache_dir, screen)
    folder = options.workdir or default_folder(study.name, study.digest).path
    say_plan(study, folder, finished_runs(study, folder, options), screen)
    finished = execute(study, folder, options, LAUNCH, screen)
    write_report(study, finished, folder)
    screen.say()
    screen.say(screen_table(study, grouped(study, finished)))
    screen.say(escape(f"Tables and figure in {folder}: {RUNS_TABLE}, {TABLE}, {FIGURE}"))
    return folder


def say_plan(study: Study, folder: Path, finished: dict[str, FinishedRun], screen: Screen) -> None:
    """All runs of a study before the first of them starts, and which are finished already."""
    table = Table(title=escape(f"The plan of {study.name}"), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("Run", "Starts from", "Finished"):
        table.add_column(column)
    for run in study.runs:
        done = finished.get(run.name)
        table.add_row(escape(run.name), escape(run.start or "random weights"), "yes" if done else "")
    screen.say(table)
    left = len(study.runs) - len(finished)
    screen.say(escape(f"{len(study.runs)} runs, {left} of them to do. Tables and figure: {folder}; runs: runs/."))


def write_report(study: Study, finished: Sequence[FinishedRun], folder: Path) -> None:
    """Writes the tables and the figure of a transfer curve."""
    groups = grouped(study, finished)
    write_csv(run_rows(finished), folder / RUNS_TABLE)
    with replaced_file(folder / TABLE) as temporary:
        temporary.write_text(markdown_table(study, groups), encoding="utf-8")
    draw_curves(groups, SIZE, METHOD, f"{study.name.replace('_', ' ')}: mean and 95 % t interval", folder / FIGURE)

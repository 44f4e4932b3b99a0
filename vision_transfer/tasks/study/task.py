"""The task `transfer_curve`: one pretraining, then features, fine-tuning and from scratch at several sizes of data.

The stages are those of the config, so that each of their values can be set on the command line: `pretrain` on the
source data, `head` on its frozen convolutions, `whole` continues with all trainable layers, `scratch` starts from
random weights. Tables and a figure are in the study's folder.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from vision_transfer.config import Config
from vision_transfer.config.schema import DatasetConfig
from vision_transfer.data.load import load_dataset
from vision_transfer.errors import UserError
from vision_transfer.runs.folder import default_folder
from vision_transfer.runs.prepare import RunOptions
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.files import claimed_folder, write_text
from vision_transfer.tasks.ablation.all_runs import all_finished, work
from vision_transfer.tasks.ablation.sweep import SweepFolder, finished_run, forget
from vision_transfer.tasks.figures import draw_or_say_why, save_png
from vision_transfer.tasks.study.figures import curves_figure, drawn_values
from vision_transfer.tasks.study.plan import (
    SEED,
    SIZE,
    Label,
    PlannedRun,
    Study,
    check_study,
    with_fingerprints,
    with_least_steps,
)
from vision_transfer.tasks.study.runs import FinishedRun, conditions, launch, warn_of_several_conditions
from vision_transfer.tasks.study.tables import CAPTION, COLUMNS, SCREEN_COLUMNS, cells_of, grouped, run_rows
from vision_transfer.tasks.tables import markdown_table, screen_table, write_csv

PRETRAINING, FEATURES, FINE_TUNING, FROM_SCRATCH = "pretraining", "features", "fine_tuning", "from_scratch"
STAGES = {PRETRAINING: "pretrain", FEATURES: "head", FINE_TUNING: "whole", FROM_SCRATCH: "scratch"}
# The layers taken from the run that one starts from: a new task needs a new head, continuing does not.
TAKEN: dict[str, Literal["backbone", "all"]] = {FEATURES: "backbone", FINE_TUNING: "all"}
METHOD = "method"
RUNS_TABLE, TABLE, FIGURE = "runs.csv", "table.md", "curves.png"


def transfer_curve(config: Config, all_examples: int) -> Study:
    """The study that a config of the task `transfer_curve` describes.

    A seed determines initialisation, order, dropout and the images of the subset; all runs share one pretraining. The
    fine-tuning of a seed and size continues its features run, so that the head is trained once for both. A size of 0
    means all examples of the target data.

    Raises:
        UserError: a size is larger than the data.
    """
    pretraining = _pretraining(config)
    runs = [pretraining]
    sizes = dict.fromkeys(size or all_examples for size in config.study.train_examples)
    for size in sizes:
        if not 1 <= size <= all_examples:
            raise UserError(f"config.study.train_examples: got {size}; the data has {all_examples:,} training images")
        for seed in config.study.seeds:
            features = _run(config, FEATURES, size, seed, pretraining, all_examples)
            runs += [
                features,
                _run(config, FINE_TUNING, size, seed, features, all_examples),
                _run(config, FROM_SCRATCH, size, seed, None, all_examples),
            ]
    return Study(config.name, tuple(runs))


def _pretraining(config: Config) -> PlannedRun:
    study = config.study
    # subsets, folds and groups are those of the target
    whole = DatasetConfig()
    source = replace(
        config.dataset,
        name=study.source_name,
        root=study.source_root,
        train_examples=whole.train_examples,
        subset_seed=whole.subset_seed,
        folds=whole.folds,
        fold=whole.fold,
        grouped_by=whole.grouped_by,
        splits=whole.splits,
    )
    return PlannedRun(PRETRAINING, replace(_single(config, PRETRAINING), dataset=source), {}, compared=False)


def _run(config: Config, method: str, size: int, seed: int, start: PlannedRun | None, all_examples: int) -> PlannedRun:
    examples = config.dataset.train_examples if size == all_examples else size
    own = replace(
        _single(config, method),
        seed=seed,
        dataset=replace(config.dataset, train_examples=examples, subset_seed=seed),
        init_from_layers=TAKEN.get(method, config.init_from_layers),
    )
    labels: dict[str, Label] = {METHOD: method, SIZE: size, SEED: seed}
    return PlannedRun(f"{method}, {size:,} images, seed {seed}", with_least_steps(own, size), labels, start)


def _single(config: Config, method: str) -> Config:
    """A training run with only the stage of a method."""
    stage = STAGES[method]
    return replace(
        config,
        task="train",
        name=f"{config.name}_{method}",
        stages={stage: config.stages[stage]},
        schedule=(stage,),
    )


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
    sweep, now = SweepFolder(folder), None if options.reuse else conditions()
    busy = UserError(f"{folder}: this study is in use by another process; wait for it to end")
    with claimed_folder(folder, busy):
        forget(study, sweep, finished=options.rerun)
        say_plan(study, folder, [run for run in study.runs if finished_run(run, sweep, now)], screen)
        work(study, sweep, options, launch, screen)
        finished = all_finished(study, sweep)
        warn_of_several_conditions(finished, screen)
        write_report(study, finished, folder, screen)
    return folder


def say_plan(study: Study, folder: Path, finished: Sequence[PlannedRun], screen: Screen) -> None:
    """Shows all runs of a study before the first one starts, and which are finished already."""
    rows = [
        [run.name, run.start.name if run.start else "random weights", "yes" if run in finished else ""]
        for run in study.runs
    ]
    screen.say(screen_table(f"The plan of {study.name}", ("Run", "Starts from", "Finished"), rows, 3))
    remaining = len(study.runs) - len(finished)
    screen.say(f"{len(study.runs)} runs, {remaining} remaining. Tables and figure: {folder}; runs: runs/.")


def write_report(study: Study, finished: Sequence[FinishedRun], folder: Path, screen: Screen) -> None:
    """Writes the tables and the figure of a transfer curve, and shows a table."""
    groups = grouped(finished)
    header, rows = cells_of(groups, COLUMNS)
    labels = len(groups[0].labels)
    write_csv(run_rows(finished), folder / RUNS_TABLE)
    write_text(folder / TABLE, markdown_table(header, rows, labels, CAPTION))
    title = f"{study.name.replace('_', ' ')}: {drawn_values([group.test for group in groups])}"
    file = folder / FIGURE
    draw_or_say_why(file, lambda: save_png(curves_figure(groups, SIZE, METHOD, title), file), screen)
    screen.say()
    screen.say(screen_table(study.name, header, rows, labels, CAPTION, SCREEN_COLUMNS))
    screen.say(f"Tables and figure in {folder}: {RUNS_TABLE}, {TABLE}, {FIGURE}")

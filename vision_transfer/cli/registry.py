"""The registry of tasks and modes: for each name its meaning, the flag that it needs, and the function that does it.

A config has a task, `config.task`. `--mode` is `run` by default, which does that task; other modes work on what exists.
The help, the dispatch and the message for an unknown name come from here. Nothing heavy is imported before a function
is called, so that `--help` and a mistyped flag answer at once.
"""

import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from absl import flags

from vision_transfer.config import Config, checked
from vision_transfer.config.own_parts import FOLDER, with_sources
from vision_transfer.errors import UserError
from vision_transfer.runtime.program import program

if TYPE_CHECKING:
    from vision_transfer.runs.prepare import RunOptions
    from vision_transfer.runtime.console import Screen
    from vision_transfer.runtime.preemption import StopSignal

RUN = "run"


@dataclass(frozen=True)
class Command:
    """One command: its flags as they were read, the root of all caches, and what every task and mode works with."""

    flags: flags.FlagValues
    cache: Path
    screen: "Screen"
    stop: "StopSignal"

    @cached_property
    def optional_config(self) -> Config | None:
        """`--config`, checked, with its references to parts tied to their files; None where it was not given.

        Raises:
            UserError: a value that is not allowed, or a file that is missing.
        """
        if self.flags.config is None:
            return None
        kept = None if self.workdir is None else self.workdir / FOLDER
        return with_sources(checked(self.flags.config), kept, self.cache / FOLDER)

    @property
    def config(self) -> Config:
        """`--config`, checked.

        Raises:
            UserError: it was not given, or a value is not allowed.
        """
        config = self.optional_config
        if config is None:
            raise UserError(f"--mode={self.flags.mode} needs --config=FILE, such as --config=finetune")
        return config

    @property
    def workdir(self) -> Path | None:
        """`--workdir`, or None."""
        return _path(self.flags.workdir)

    @property
    def out(self) -> Path | None:
        """`--out`, or None."""
        return _path(self.flags.out)

    def out_file(self, example: str) -> Path | None:
        """`--out` as a file to write, or None.

        Raises:
            UserError: it is a folder.
        """
        out = self.out
        if out is not None and out.is_dir():
            raise UserError(f"--out={out}: is a folder; give a file, such as {out / example}")
        return out

    @property
    def out_folder(self) -> Path | None:
        """`--out` as a folder to write into, or None.

        Raises:
            UserError: it, or a part of its path, is a file.
        """
        out = self.out
        for path in () if out is None else (out, *out.parents):
            if path.exists() and not path.is_dir():
                raise UserError(f"--out={out}: {path} is a file; give a folder")
        return out

    @property
    def run(self) -> Path:
        """`--workdir` as the folder of a finished run.

        Raises:
            UserError: it was not given.
        """
        if self.workdir is None:
            raise UserError(f"--mode={self.flags.mode} needs --workdir=RUN, the folder of a finished run")
        return self.workdir

    @property
    def folders(self) -> list[Path]:
        """`--workdir` as one or several folders; see `folders_of`.

        Raises:
            UserError: it was not given, or names none.
        """
        return folders_of(str(self.run))

    @property
    def options(self) -> "RunOptions":
        """The options of a run besides its config."""
        from vision_transfer.runs.prepare import RunOptions

        command = f"{program()} {shlex.join(sys.argv[1:])}".rstrip()
        return RunOptions(self.workdir, self.cache, self.flags.rerun, self.flags.reuse, self.stop, command)


@dataclass(frozen=True)
class Entry:
    """A task or a mode: its meaning for the help, the function that does it, and the flag that it needs, if any.

    Where a config has folds, `by_folds` is done instead. `flags` are those that it reads of the flags that few read.
    `on_hosts` tells how several hosts do it together: in this process of each (`itself`), in processes that it starts
    (`started`), or not at all (empty).
    """

    meaning: str
    do: Callable[[Command], object]
    needs: Literal["config", "workdir", ""] = "config"
    by_folds: "Entry | None" = None
    flags: tuple[str, ...] = ()
    on_hosts: Literal["", "itself", "started"] = ""


def find_entry(mode: str, config: Config | None) -> Entry:
    """The mode's entry or, where the mode is `run`, that of the config's task."""
    if mode != RUN or config is None:
        return MODES[mode]
    entry, has_folds = TASKS[config.task], config.dataset.folds and config.dataset.fold is None
    return entry.by_folds or entry if has_folds else entry


def _train(command: Command) -> None:
    from vision_transfer.tasks.train.task import train

    train(command.config, command.options, command.screen)


def _classify(command: Command) -> None:
    from vision_transfer.tasks.classic_classifier.task import classify

    classify(command.config, command.options, command.screen)


def _probe(command: Command) -> None:
    from vision_transfer.tasks.probe.task import probe

    probe(command.config, command.options, command.screen)


def _transfer_curve(command: Command) -> None:
    from vision_transfer.tasks.study.task import run_transfer_curve

    run_transfer_curve(command.config, command.options, command.screen)


def _ablation(command: Command) -> None:
    from vision_transfer.tasks.ablation.task import run_ablation

    launcher, dry_run = command.flags.launcher, command.flags.dry_run
    run_ablation(command.config, command.options, command.screen, launcher, dry_run=dry_run)


def _cross_validate(command: Command) -> None:
    from vision_transfer.tasks.folds import cross_validate

    cross_validate(command.config, command.options, command.screen, command.flags.launcher)


def _search(command: Command) -> None:
    from vision_transfer.tasks.search.task import search

    search(command.config, command.options, command.screen, command.flags.launcher)


def _benchmark(command: Command) -> None:
    from vision_transfer.tasks.benchmark.task import benchmark, benchmark_on_hosts

    given = command.flags.hosts
    if given is None:
        benchmark(command.config, command.cache, command.workdir, command.screen)
    else:
        benchmark_on_hosts(command.config, command.cache, command.workdir, command.screen, given)


def _summary(command: Command) -> None:
    from vision_transfer.tasks.summary_and_fetch import summarise

    summarise(command.config, command.cache, command.screen)


def _fetch(command: Command) -> None:
    from vision_transfer.tasks.summary_and_fetch import fetch

    fetch(command.config, command.cache, command.screen)


def _check(command: Command) -> None:
    from vision_transfer.tasks.check.task import check

    check(command.config, command.cache, command.out_folder, command.screen)


def _explain(command: Command) -> None:
    from vision_transfer.tasks.explain.task import ExplainFlags, explain

    given = {name: command.flags[name].value for name in ("images", "show", "layers", "filters", "ascent", "target")}
    flags = ExplainFlags(workdir=command.workdir, config=command.optional_config, out=command.out_folder, **given)
    explain(flags, command.cache, command.screen)


def _report(command: Command) -> None:
    from vision_transfer.tasks.report.task import report

    report(command.folders, command.out_file("report.html"), command.cache, command.screen)


def _cache(command: Command) -> None:
    from vision_transfer.tasks.cache import say_cache

    say_cache(command.cache, command.flags.prune, command.screen)


def _predict(command: Command) -> None:
    from vision_transfer.tasks.predict import predict

    flags = command.flags
    predict(command.folders, flags.images, flags.out, command.cache, command.screen, flags.views)


def _evaluate(command: Command) -> None:
    from vision_transfer.tasks.evaluate import evaluate

    flags, out = command.flags, command.out_file("metrics.json")
    config = command.optional_config
    evaluate(command.folders, flags.images, config, out, command.cache, command.screen, flags.views)


def _export(command: Command) -> None:
    from vision_transfer.tasks.export.task import export

    export(command.run, command.flags.out, command.flags.format, command.cache, command.screen)


def _show_augmentation(command: Command) -> None:
    from vision_transfer.tasks.show_augmentation import show_augmentation

    show_augmentation(command.config, command.flags.images, command.out, command.cache, command.screen)


CROSS_VALIDATION = Entry(
    "train and test on each fold, then train on the images of all", _cross_validate, flags=("launcher",)
)

TASKS: dict[str, Entry] = {
    "train": Entry(
        "train the stages of the schedule, then test once", _train, by_folds=CROSS_VALIDATION, on_hosts="itself"
    ),
    "classic_classifier": Entry(
        "fit logistic regression or an SVM to pooled features", _classify, by_folds=CROSS_VALIDATION
    ),
    "probe": Entry("score every layer and recommend a freeze spec, without fine-tuning", _probe),
    "ablation": Entry(
        "train under a grid of masks, rates, schedules, sizes and seeds", _ablation, flags=("launcher", "dry_run")
    ),
    "search": Entry(
        "find the best model in a number of minutes, by heads and successive halving", _search, flags=("launcher",)
    ),
    "transfer_curve": Entry("pretrain on one data set, transfer to another at several sizes", _transfer_curve),
    "benchmark": Entry("measure steps and whole runs, beside peers if you like", _benchmark, on_hosts="started"),
}

MODES: dict[str, Entry] = {
    RUN: Entry("do the config's task, resume it, or show its result (default)", _train),
    "summary": Entry("print the network, layer by layer, and what is trainable in each stage", _summary),
    "fetch": Entry("fetch the pretrained weights (and a public data set) ahead of time", _fetch),
    "check": Entry("list what is wrong with a data set, in check.json and check.png (--out)", _check, flags=("out",)),
    "show_augmentation": Entry(
        "draw nine variants of a training image, or of --images=FILE", _show_augmentation, flags=("images", "out")
    ),
    "predict": Entry(
        "write classes and calibrated probabilities of --images to --out=FILE.csv; of several runs (--workdir=A,B) "
        "their mean",
        _predict,
        "workdir",
        flags=("images", "out", "views"),
        on_hosts="itself",
    ),
    "evaluate": Entry(
        "metrics of --workdir=RUN on its test split, on --images=FOLDER of class folders, or on --config's data; or of "
        "the mean of several runs (--workdir=A,B)",
        _evaluate,
        "workdir",
        flags=("config", "images", "out", "views"),
    ),
    "export": Entry(
        "export --workdir=RUN: StableHLO, Keras, ONNX and a model card", _export, "workdir", flags=("out", "format")
    ),
    "report": Entry(
        "write report.html of --workdir=RUN, or compare several, or benchmarks (--workdir=A,B)",
        _report,
        "workdir",
        flags=("out",),
    ),
    "explain": Entry(
        "draw what a run (--workdir) or a pretrained backbone (--config) sees",
        _explain,
        "",
        flags=("workdir", "config", "images", "out", "show", "layers", "filters", "ascent", "target"),
    ),
    "cache": Entry("list the contents of the cache folder; --prune=… removes from it", _cache, "", flags=("prune",)),
}


def folders_of(text: str) -> list[Path]:
    """The folders that a text separates by commas; one whose own name has commas is one.

    Raises:
        UserError: the text names none.
    """
    from vision_transfer.runtime.files import user_path

    whole = user_path(text)
    parts = [user_path(part.strip()) for part in text.split(",") if part.strip()]
    if not parts:
        raise UserError(f"--workdir={text}: names no folder; give that of a run, or of several with commas")
    return [whole] if whole.is_dir() else parts


def _path(text: str | None) -> Path | None:
    from vision_transfer.runtime.files import user_path

    return None if text is None else user_path(text)

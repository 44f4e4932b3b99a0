"""What `--mode` can be, and the way from each mode to the code that does it.

Nothing heavy is imported before a mode is entered, so that `--help` and a mistyped flag answer at once.
"""

import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from absl import flags

from vision_transfer.config import Config, checked
from vision_transfer.errors import UserError


@dataclass(frozen=True)
class Call:
    """One command: its flags, and what every mode needs.

    Attributes:
        values: the flags.
        cache: root of all caches.
        screen: a `Screen`.
        stop: a `StopSignal`.
    """

    values: flags.FlagValues
    cache: Path
    screen: Any
    stop: Any

    @property
    def workdir(self) -> Path | None:
        """`--workdir`, or None where it was not given."""
        return None if self.values.workdir is None else Path(self.values.workdir).expanduser()

    @property
    def optional_config(self) -> Config | None:
        """`--config`, checked; None where it was not given.

        Raises:
            UserError: a value that is not allowed.
        """
        return None if self.values.config is None else checked(self.values.config)

    @property
    def config(self) -> Config:
        """`--config`, checked.

        Raises:
            UserError: it was not given, or a value is not allowed.
        """
        config = self.optional_config
        if config is None:
            raise UserError(f"--mode={self.values.mode} needs --config=FILE, such as --config=configs/finetune.py")
        return config


@dataclass(frozen=True)
class Mode:
    """A value of `--mode`.

    Attributes:
        meaning: for `--help`.
        enter: does it.
        needs_config: whether `--config` must be given.
    """

    meaning: str
    enter: Callable[[Call], None]
    needs_config: bool = True


def _run(call: Call) -> None:
    if call.config.task == "benchmark":
        from vision_transfer.tasks.benchmark.task import benchmark

        benchmark(call.config, call.cache, call.workdir, call.screen)
        return
    from vision_transfer.runs.prepare import RunOptions
    from vision_transfer.tasks.train import task

    command = shlex.join(["python", *sys.argv])
    options = RunOptions(call.workdir, call.cache, call.values.rerun, call.values.reuse, call.stop, command)
    match call.config.task:
        case "classic_classifier":
            from vision_transfer.tasks.classic_classifier.task import classify

            classify(call.config, options, call.screen)
        case "probe":
            from vision_transfer.tasks.probe.task import probe

            probe(call.config, options, call.screen)
        case "transfer_curve":
            from vision_transfer.tasks.study.task import run_transfer_curve

            run_transfer_curve(call.config, options, call.screen)
        case "ablation":
            from vision_transfer.tasks.ablation.task import run_ablation

            run_ablation(call.config, options, call.screen, call.values.launcher, dry_run=call.values.dry_run)
        case _:
            task.train(call.config, options, call.screen)


def _summary(call: Call) -> None:
    from vision_transfer.tasks import summary_and_fetch

    network = summary_and_fetch.summarise(call.config, call.cache, call.screen)
    if call.config.task == "ablation":
        from vision_transfer.tasks.ablation.masks import masks_table

        call.screen.say(masks_table(call.config.ablation.masks, network))


def _fetch(call: Call) -> None:
    from vision_transfer.tasks import summary_and_fetch

    summary_and_fetch.fetch(call.config, call.cache, call.screen)


def _check(call: Call) -> None:
    from vision_transfer.tasks.check.task import check

    check(call.config, call.cache, None if call.values.out is None else Path(call.values.out).expanduser(), call.screen)


def _explain(call: Call) -> None:
    from vision_transfer.tasks.explain.task import ExplainFlags, explain

    values = call.values
    out = None if values.out is None else Path(values.out).expanduser()
    flags = ExplainFlags(
        workdir=call.workdir,
        config=call.optional_config,
        images=values.images,
        out=out,
        show=values.show,
        layers=values.layers,
        filters=values.filters,
        ascent=values.ascent,
        target=values.target,
    )
    explain(flags, call.cache, call.screen)


def _report(call: Call) -> None:
    from vision_transfer.tasks.report.task import report

    out = None if call.values.out is None else Path(call.values.out).expanduser()
    report(call.values.workdir, out, call.cache, call.screen)


def _cache(call: Call) -> None:
    from vision_transfer.tasks.cache.task import say_cache

    say_cache(call.cache, call.values.prune, call.screen)


def _predict(call: Call) -> None:
    from vision_transfer.tasks.predict import predict

    predict(_folder_of_a_run(call), call.values.images, call.values.out, call.cache, call.screen)


def _evaluate(call: Call) -> None:
    from vision_transfer.tasks.evaluate import evaluate

    values = call.values
    evaluate(_folder_of_a_run(call), values.images, call.optional_config, values.out, call.cache, call.screen)


def _export(call: Call) -> None:
    from vision_transfer.tasks.export.task import export

    values = call.values
    export(_folder_of_a_run(call), values.out, values.format, call.cache, call.screen)


def _show_augmentation(call: Call) -> None:
    from vision_transfer.tasks.show_augmentation import show_augmentation

    out = None if call.values.out is None else Path(call.values.out).expanduser()
    show_augmentation(call.config, call.values.images, out, call.cache, call.screen)


def _folder_of_a_run(call: Call) -> Path:
    if call.workdir is None:
        raise UserError(f"--mode={call.values.mode} needs --workdir=RUN, the folder of a finished run")
    return call.workdir


MODES: dict[str, Mode] = {
    "run": Mode("train, go on after an interruption, or show the result (default)", _run),
    "summary": Mode("print the network, layer by layer, with what trains in each stage", _summary),
    "report": Mode(
        "write report.html of the run in --workdir, or compare several (--workdir=A,B)", _report, needs_config=False
    ),
    "show_augmentation": Mode("draw nine variants of a training image, or of --images=FILE", _show_augmentation),
    "fetch": Mode("fetch the pretrained weights (and a public data set) ahead of time", _fetch),
    "predict": Mode(
        "classes and calibrated probabilities of --images=PICTURES, to --out=FILE.csv", _predict, needs_config=False
    ),
    "evaluate": Mode(
        "figures of --workdir=RUN on its test split, on --images=FOLDER of class folders, or on --config's data",
        _evaluate,
        needs_config=False,
    ),
    "export": Mode(
        "--workdir=RUN for use elsewhere: StableHLO, Keras, ONNX and a model card", _export, needs_config=False
    ),
    "cache": Mode("list what the cache folder holds; --prune=… removes from it", _cache, needs_config=False),
    "check": Mode("look at a data set and list what is wrong with it, in check.json and check.png (--out)", _check),
    "explain": Mode(
        "figures of what a finished run (--workdir) or a pretrained backbone alone (--config) sees",
        _explain,
        needs_config=False,
    ),
}

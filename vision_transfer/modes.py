"""What `--mode` can be, and the way from each mode to the code that does it.

Nothing heavy is imported before a mode is entered, so that `--help` and a mistyped flag answer at once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from absl import flags

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
    def config(self) -> Any:
        """`--config`.

        Raises:
            UserError: it was not given.
        """
        if self.values.config is None:
            raise UserError(f"--mode={self.values.mode} needs --config=FILE, such as --config=configs/finetune.py")
        return self.values.config


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
        from vision_transfer.benchmark.task import benchmark

        benchmark(call.config, call.cache, call.workdir, call.screen)
        return
    from vision_transfer import experiment
    from vision_transfer.setup import RunOptions

    options = RunOptions(call.workdir, call.cache, call.values.rerun, call.values.reuse, call.stop)
    experiment.train(call.config, options, call.screen)


def _summary(call: Call) -> None:
    from vision_transfer import experiment

    experiment.summarise(call.config, call.cache, call.screen)


def _fetch(call: Call) -> None:
    from vision_transfer import experiment

    experiment.fetch(call.config, call.cache, call.screen)


MODES: dict[str, Mode] = {
    "run": Mode("train, go on after an interruption, or show the result (default)", _run),
    "summary": Mode("print the network, layer by layer, with what trains in each stage", _summary),
    "fetch": Mode("fetch the pretrained weights (and a public data set) ahead of time", _fetch),
}

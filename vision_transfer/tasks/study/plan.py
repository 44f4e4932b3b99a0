"""A study as plain data: the runs, what each starts from, and what its table tells apart."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from vision_transfer.config import Config, digested, validate
from vision_transfer.data.batches import batches_per_pass
from vision_transfer.errors import UserError
from vision_transfer.runtime.provenance import json_digest

Label = str | int | float


@dataclass(frozen=True)
class PlannedRun:
    """A run of a study.

    Attributes:
        name: in this study; stands once in it.
        config: of the run, all but `init_from` where it starts from another run of the study.
        labels: what tables and figures tell it apart by, `{"method": "features", "training images": 100, "seed": 0}`.
        start: name of the earlier run whose parameters it starts from; None for none.
        compared: whether it is a row of the tables; a shared pretraining is not.
        data: fingerprint of the data that it is planned on; None where nobody looked.
    """

    name: str
    config: Config
    labels: dict[str, Label]
    start: str | None = None
    compared: bool = True
    data: str | None = None

    def on_same_data(self, result: Mapping[str, Any]) -> bool:
        """Whether a `result.json` is of the data that the run is planned on."""
        return self.data is None or result["dataset"]["fingerprint"] == self.data


@dataclass(frozen=True)
class Study:
    """Runs in the order in which they are done.

    Attributes:
        name: first part of the study's folder.
        runs: a run stands behind the one that it starts from.
        over: the label that repeats a run, such as `seed`; means and intervals are over it.
    """

    name: str
    runs: tuple[PlannedRun, ...]
    over: str = "seed"

    @property
    def group_by(self) -> tuple[str, ...]:
        """The labels that tell groups of repeated runs apart."""
        return tuple(dict.fromkeys(label for run in self.runs for label in run.labels if label != self.over))

    @property
    def digest(self) -> str:
        """Of all runs' configs, names and labels."""
        return json_digest([[run.name, run.labels, run.start, digested(run.config)] for run in self.runs])


def check_study(study: Study) -> None:
    """Refuses a study before anything of it is run.

    Raises:
        UserError: no runs, a name that stands twice, a start that is no earlier run, or a config that is wrong.
    """
    if not any(run.compared for run in study.runs):
        raise UserError(f"{study.name}: there is nothing to run; its lists of seeds or variants are empty")
    _check_order(study.runs)
    for run in study.runs:
        try:
            validate(run.config)
        except UserError as error:
            raise UserError(f"{study.name}: run {run.name!r}:\n{error}") from error


def with_least_steps(config: Config, examples: int) -> Config:
    """The config with `study.least_steps` as an epoch of each stage whose pass over the examples has fewer steps."""
    if batches_per_pass(examples, config.batch_size) >= config.study.least_steps:
        return config
    stages = {
        name: replace(stage, steps_per_epoch=stage.steps_per_epoch or config.study.least_steps)
        for name, stage in config.stages.items()
    }
    return replace(config, stages=stages)


def _check_order(runs: Iterable[PlannedRun]) -> None:
    earlier: set[str] = set()
    for run in runs:
        if run.name in earlier:
            raise UserError(f"the run {run.name!r} stands twice in the study; a value is listed twice")
        if run.start is not None and run.start not in earlier:
            raise UserError(f"the run {run.name!r} starts from {run.start!r}, which is no earlier run of the study")
        earlier.add(run.name)

"""The plan of a study: its runs, what each starts from, the labels of its tables, and the data it is planned on."""

from dataclasses import dataclass, replace
from pathlib import Path

from vision_transfer.config import Config, digested, validate
from vision_transfer.config.schema import DatasetConfig
from vision_transfer.data.batches import batches_per_pass
from vision_transfer.data.load import data_fingerprint
from vision_transfer.errors import UserError
from vision_transfer.runs.prepare import absolute_or_hub
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.provenance import json_digest

Label = str | int | float
# The labels that every study has.
SIZE, SEED = "training images", "seed"
# Labels of values of single fields, in studies that compare them.
BACKBONE, POOLING, BATCH, STATISTICS = "backbone", "pooling", "batch size", "statistics"
# Such a label of a run that is the same for all values of the field.
ANY = "any"


@dataclass(frozen=True)
class PlannedRun:
    """A run of a study.

    Attributes:
        config: of the run, except for `init_from` where it starts from another run of the study.
        labels: its keys in tables and figures, `{"method": "features", "training images": 100, "seed": 0}`.
        start: the earlier run whose parameters it starts from, or None.
        compared: whether it is a row of the tables; a shared pretraining is not.
        data: fingerprint of the data that it is planned on; None if unknown.
    """

    name: str
    config: Config
    labels: dict[str, Label]
    start: "PlannedRun | None" = None
    compared: bool = True
    data: str | None = None

    @property
    def key(self) -> str:
        """Digest of the config, the paths of the data and of what it starts from, and the run that it starts from."""
        return json_digest([digested(self.config), self.config.dataset.root, *self._start_key])

    @property
    def first_stage_key(self) -> str:
        """Digest of what determines the first stage, such as a head; runs with the same key share that stage."""
        config, first = self.config, f"stages.{self.config.schedule[0]}."
        values = {
            path: value
            for path, value in digested(config).items()
            if path != "schedule" and (not path.startswith("stages.") or path.startswith(first))
        }
        return json_digest([values, config.dataset.root, *self._start_key])

    @property
    def _start_key(self) -> list[str | None]:
        return [*starting_paths(self.config), None if self.start is None else self.start.key]


@dataclass(frozen=True)
class Study:
    """Runs in the order of execution, each after the one that it starts from."""

    name: str
    runs: tuple[PlannedRun, ...]

    @property
    def digest(self) -> str:
        """Of all runs' configs, names, labels and data, and the weights or runs that they start from."""
        starts = [None if run.start is None else run.start.name for run in self.runs]
        return json_digest(
            [
                [run.name, run.labels, start, digested(run.config), *starting_paths(run.config), run.data]
                for run, start in zip(self.runs, starts, strict=True)
            ]
        )


def starting_paths(config: Config) -> tuple[str | None, str | None]:
    """Absolute paths of the weights and of the run that training starts from, which a config's digest leaves out.

    The digest of a single run has the weights themselves instead.
    """
    return absolute_or_hub(config.model.weights_path), absolute_or_hub(config.init_from)


def check_study(study: Study) -> None:
    """Refuses a study before any of its runs is started.

    Raises:
        UserError: no runs, a name that occurs twice, a start that is no earlier run, or an invalid config.
    """
    if not any(run.compared for run in study.runs):
        raise UserError(f"{study.name}: there is nothing to run; its lists of seeds or variants are empty")
    earlier: set[str] = set()
    for run in study.runs:
        if run.name in earlier:
            raise UserError(f"{study.name}: the run {run.name!r} occurs twice; a value is listed twice")
        if run.start is not None and run.start.name not in earlier:
            raise UserError(f"{study.name}: run {run.name!r} starts from {run.start.name!r}, which is no earlier run")
        earlier.add(run.name)
        try:
            validate(run.config)
        except UserError as error:
            raise UserError(f"{study.name}: run {run.name!r}:\n{error}") from error


def with_least_steps(config: Config, examples: int) -> Config:
    """The config with epochs of at least `study.least_steps`, where a pass over the examples has fewer steps."""
    if batches_per_pass(examples, config.batch_size) >= config.study.least_steps:
        return config
    stages = {
        name: replace(stage, steps_per_epoch=stage.steps_per_epoch or max(stage.least_steps, config.study.least_steps))
        for name, stage in config.stages.items()
    }
    return replace(config, stages=stages)


def with_fingerprints(study: Study, cache_dir: Path, screen: Screen) -> Study:
    """The study with the current fingerprint of each run's data, so that a run on other data never counts as finished.

    Each source is read once.

    Raises:
        UserError: the data are missing or cannot be used.
    """
    known: dict[DatasetConfig, str] = {}
    runs = []
    for run in study.runs:
        # A subset has the fingerprint of the whole.
        data = replace(run.config.dataset, train_examples=None, subset_seed=0)
        if data not in known:
            known[data] = data_fingerprint(data, cache_dir=cache_dir, screen=screen)
        runs.append(replace(run, data=known[data]))
    return replace(study, runs=tuple(runs))


def label_words(name: str, value: Label) -> str:
    """A label in sentences and legends."""
    if name == SIZE:
        return f"{value:,} images"
    if name == BATCH:
        return f"batches of {value}"
    if name == POOLING:
        return f"pooling={value}"
    return f"{name} {value:g}" if isinstance(value, float) else str(value)

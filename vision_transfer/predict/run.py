"""Finished runs for analysis: the files of a run as data frames and arrays, and many runs as one table."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vision_transfer.config import Config, flatten, read_config
from vision_transfer.errors import UserError
from vision_transfer.models.network import Network, Params
from vision_transfer.predict.decision import decide, kept_decision
from vision_transfer.predict.temperature import calibration_in, probabilities
from vision_transfer.runs.folder import RunFolder
from vision_transfer.runs.load import TrainedRun, load_run
from vision_transfer.runs.manifest import check_files
from vision_transfer.runs.predictions import read_predictions
from vision_transfer.runtime.cache_folder import cache_folder
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.files import user_path

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Run:
    """A run's folder. Files are read when they are asked for; those of the result are checked against its manifest.

    Examples:
        >>> run = Run("runs/finetune-0123456789ab")
        >>> run.metrics.plot(x="epoch", y="validation_accuracy")
        >>> run.predictions.query("not correct").head()

    Every property raises `UserError` where the folder has no run, its file is damaged, or the run has not got so far.
    """

    path: Path

    def __post_init__(self) -> None:
        """Takes any path."""
        object.__setattr__(self, "path", user_path(self.path))

    @cached_property
    def config(self) -> Config:
        """The config as it was resolved."""
        return read_config(self._folder.config_file)

    @cached_property
    def result(self) -> dict[str, Any]:
        """The content of `result.json`; only of a finished run."""
        folder = self._folder
        result = folder.result()
        if result is None:
            read_config(folder.config_file)
            raise UserError(f"{self.path}: this run is not finished; run its command again to resume it")
        check_files(folder)
        return result

    @property
    def metrics(self) -> "pandas.DataFrame":
        """A row for each stage and epoch, also of a run that is not finished: losses, accuracies, rate, seconds."""
        import pandas

        file = self._folder.metrics_file
        try:
            # Pandas' own reader of JSON rounds.
            return pandas.DataFrame([json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()])
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(f"{file}: cannot be read ({error}); no epoch has ended yet, or it is damaged") from error

    @property
    def predictions(self) -> "pandas.DataFrame":
        """A row for each test image: file, label, predicted class, whether that is correct, and probabilities.

        The probabilities are calibrated, as those of `Predictor` are: that of the predicted class in `probability`,
        all in columns `p(CLASS)`. Where the run has a threshold (`config.decision`), `decision` is what it decides.
        The rows of a run on all folds without a test split are those of the folds' networks, for which this run's
        temperature and threshold do not hold: they are not calibrated, and have no decision.
        """
        import pandas

        classes, folder = np.array(self.result["dataset"]["classes"]), self._folder
        saved = read_predictions(folder.predictions_file)
        if saved is None:
            raise UserError(f"{folder.predictions_file}: is missing; the run's command makes it again")
        logits, labels = saved.test
        calibration = None if saved.is_out_of_fold else calibration_in(folder, saved)
        shares = probabilities(logits, 1.0 if calibration is None else calibration.temperature)
        predicted = shares.argmax(axis=1)
        table = pandas.DataFrame(
            {
                "file": list(saved.files) or [""] * len(labels),
                "label": classes[labels],
                "predicted": classes[predicted],
                "correct": predicted == labels,
                "probability": shares.max(axis=1),
            }
        )
        decision = None if saved.is_out_of_fold else kept_decision(folder)
        if decision is not None:
            table["decision"] = decide(decision, classes.tolist(), probabilities(logits, decision.temperature))
        return table.join(pandas.DataFrame(shares, columns=[f"p({name})" for name in classes]))

    @property
    def network(self) -> Network:
        """The network."""
        return self._trained.network

    @property
    def variables(self) -> dict[str, Params]:
        """The parameters and running statistics that were tested, as numpy arrays."""
        return self._trained.variables

    @cached_property
    def _trained(self) -> TrainedRun:
        return load_run(self.path, cache_folder(), Screen().silent())

    @property
    def _folder(self) -> RunFolder:
        folder = RunFolder(self.path)
        folder.check_links()
        return folder


def results(runs: str | Path | Iterable[str | Path]) -> "pandas.DataFrame":
    """A row for each finished run: test and validation metrics, seconds, and every value of its config.

    Examples:
        >>> table = results("runs/*")
        >>> table.groupby("stages.tune.freeze").test_accuracy.agg(["mean", "min", "max"])

    Args:
        runs: a pattern, or folders of runs; folders without a finished run are passed over.

    Returns:
        Columns `run`, `test_accuracy`, `test_low` and `test_high` (95 % interval), `test_loss`, `test_examples`,
        `test_roc_auc`, `test_average_precision` and `test_kappa` (None where not defined),
        `validation_accuracy`, `validation_loss` (of the tested epoch), `tested_stage`, `seconds`; then the fields of
        the config by their dotted paths.

    Raises:
        UserError: no finished run, or a damaged one.
    """
    import pandas

    given = [runs] if isinstance(runs, str | Path) else list(runs)
    folders = [folder for one in given for folder in _matching(user_path(one))]
    finished = [Run(folder) for folder in folders if RunFolder(folder).result_file.exists()]
    rows = [_row(run) for run in finished if "test" in run.result]
    if not rows:
        raise UserError(f"results: no finished run matches {', '.join(map(str, given))}")
    return pandas.DataFrame(rows)


def _matching(pattern: Path) -> list[Path]:
    root = Path(pattern.anchor)
    try:
        return [pattern] if pattern.exists() else sorted(root.glob(str(pattern.relative_to(root))))
    except ValueError as error:
        raise UserError(f"results: {pattern}: {error}; write **/ for folders at any depth") from error


def _row(run: Run) -> dict[str, Any]:
    test, tested = run.result["test"], run.result.get("tested", {})
    low, high = test["accuracy_ci95"]
    return {
        "run": str(run.path),
        "test_accuracy": test["accuracy"],
        "test_low": low,
        "test_high": high,
        "test_loss": test["loss"],
        "test_examples": test["examples"],
        **{f"test_{name}": test[name] for name in ("roc_auc", "average_precision", "kappa")},
        "validation_accuracy": tested.get("validation", {}).get("accuracy"),
        "validation_loss": tested.get("validation", {}).get("loss"),
        "tested_stage": tested.get("stage"),
        "seconds": run.result["seconds"]["total"],
    } | flatten(run.config)

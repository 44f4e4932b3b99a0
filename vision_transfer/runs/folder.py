"""A run's folder: the paths of its files, the lock on it, and the identity of its run."""

import json
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from vision_transfer.errors import UserError
from vision_transfer.runtime.files import (
    claimed_folder,
    lies_in,
    raise_if_of_the_system,
    remove,
    remove_leftovers,
    replaced_file,
)

DEFAULT_ROOT = Path("runs")
DIGEST_LENGTH_IN_NAME = 12


class FolderBusy(UserError):
    """Another process uses the run."""


class OtherConditions(UserError):
    """The run was computed by other code, versions or devices, and is left as it is."""


@dataclass(frozen=True)
class Identity:
    """The identity of a run, and what it runs on.

    Attributes:
        digest: of all that determines its numbers by intent: config, data, starting weights.
        code: digest of the numeric modules.
        versions: of Python and the packages that decide numbers.
        device: platform, kind and number.
    """

    digest: str
    code: str
    versions: Mapping[str, str]
    device: str

    def differences(self, other: Mapping[str, Any]) -> list[str]:
        """Differences from a recorded identity apart from the digest, one line each."""
        lines: list[str] = []
        if other.get("code") != self.code:
            lines.append(f"this program's numeric code (digest): then {other.get('code')}, now {self.code}")
        if other.get("device") != self.device:
            lines.append(f"device: then {other.get('device')}, now {self.device}")
        recorded = other.get("versions")
        then = cast(dict[str, Any], recorded) if isinstance(recorded, dict) else {}
        for name in sorted({*then, *self.versions}):
            if then.get(name) != self.versions.get(name):
                lines.append(f"{name}: then {then.get(name)}, now {self.versions.get(name)}")
        return lines


@dataclass(frozen=True)
class _Place:
    """A path in a run's folder, as an attribute of `RunFolder`.

    The run writes it, and clears it when it starts again; what it has a digest of is `listed` in its manifest.
    """

    name: str
    listed: bool = False
    cleared: bool = True

    def __get__(self, folder: "RunFolder", owner: type) -> Path:
        return folder.path / self.name


@dataclass(frozen=True)
class RunFolder:
    """Paths in a run's folder."""

    path: Path

    # Written last and cleared first: its presence means that the run is finished.
    result_file = _Place("result.json", listed=True)
    # Digests of the files of a finished run (`manifest.py`).
    manifest_file = _Place("manifest.json")
    # Digest, code, versions and device of the run, written at its start; and the resolved config.
    identity_file = _Place("identity.json", listed=True)
    config_file = _Place("config.json", listed=True)
    # Seconds by activity of all attempts at a run that is not finished.
    spent_file = _Place("spent.json")
    # The layer whose cached outputs each stage starts from, or null; kept when the run resumes.
    cached_layers_file = _Place("cached_layers.json", listed=True)
    # A line of JSON for each stage and epoch.
    metrics_file = _Place("metrics.jsonl", listed=True)
    # The run's id at its tracker, and the number of epochs that it was sent.
    tracker_file = _Place("tracker.json")
    # Validation of a run that is trained but not tested (`trained.py`).
    trained_file = _Place("trained.json")
    # Test logits, labels and file names; validation logits and labels.
    predictions_file = _Place("predictions.npz", listed=True)
    # The temperature that calibrates probabilities; the threshold on them that was chosen on validation, if any.
    temperature_file = _Place("temperature.json", listed=True)
    decision_file = _Place("decision.json", listed=True)
    # Coefficients of a classic classifier, for other programs.
    coefficients_file = _Place("classifier.npz", listed=True)
    report_file = _Place("report.html")
    figures = _Place("figures", cleared=False)
    confusion_figure = _Place("figures/confusion.png")
    curves_figure = _Place("figures/curves.png")
    # A copy of the initial weights that the run took from an earlier run or a file, so that it no longer needs that.
    start = _Place("start")
    # Event files for TensorBoard, and the files of Weights & Biases.
    event_files = _Place("tensorboard")
    wandb_files = _Place("wandb")
    # Copies of the files of the user's own parts, named by their digests.
    parts = _Place("parts")
    all_checkpoints = _Place("checkpoints")

    def listed(self) -> list[Path]:
        """The files that have a digest of their own in the manifest of a finished run."""
        return [self.path / place.name for place in _places() if place.listed]

    def checkpoints(self, stage: str) -> Path:
        """Folder of a stage's checkpoints."""
        return self.all_checkpoints / stage

    def result(self) -> dict[str, Any] | None:
        """The result of a finished run, or None."""
        return read_json(self.result_file)

    def trained(self) -> dict[str, Any] | None:
        """The content of `trained.json`, or None."""
        return read_json(self.trained_file)

    def identity(self) -> dict[str, Any] | None:
        """The recorded identity of the folder's run, or None for a new folder."""
        return read_json(self.identity_file)

    def check_links(self) -> None:
        """Checks that nothing in the folder leads out of it, so that reading and clearing it touch nothing else.

        Raises:
            UserError: a part of the run is a link to somewhere else.
        """
        # Two levels are the folders that the run makes; below are those of checkpoints, whose names are listed.
        for part in (*self.path.glob("*"), *self.path.glob("*/*"), *self.path.glob("checkpoints/*/*/*")):
            if part.is_symlink() and not lies_in(part, self.path):
                raise UserError(
                    f"{part}: is a link to {part.resolve()}, outside of the run's folder; put the files themselves "
                    "there (the folder of a run may itself be a link)"
                )

    def has_trained(self) -> bool:
        """Whether the folder holds anything that was computed."""
        return self.result_file.exists() or any(self.path.glob("checkpoints/*/*/*"))

    def clear(self) -> None:
        """Removes what a run wrote, in the order above, and nothing else."""
        for place in _places():
            if place.cleared:
                remove(self.path / place.name)

    def write_metrics(self, records: list[dict[str, Any]]) -> None:
        """Replaces `metrics.jsonl` by these records."""
        with replaced_file(self.metrics_file) as temporary:
            temporary.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")

    def write_predictions(
        self,
        logits: np.ndarray,
        labels: np.ndarray,
        files: tuple[str, ...],
        validation: tuple[np.ndarray, np.ndarray] | None = None,
        folds: np.ndarray | None = None,
    ) -> None:
        """Writes `predictions.npz`: of the test and, so that calibration needs no data, of validation.

        `folds` has the fold of each test image where the runs of folds made the predictions.
        """
        arrays: dict[str, Any] = {"logits": logits, "labels": labels, "files": np.array(files)}
        if folds is not None:
            arrays["folds"] = folds
        if validation is not None:
            arrays |= {"validation_logits": validation[0], "validation_labels": validation[1]}
        with replaced_file(self.predictions_file) as temporary, temporary.open("wb") as stream:
            np.savez_compressed(stream, **arrays)


def _places() -> list[_Place]:
    return [place for place in vars(RunFolder).values() if isinstance(place, _Place)]


def default_folder(name: str, digest: str) -> RunFolder:
    """`runs/<name>-<digest>`."""
    return RunFolder(DEFAULT_ROOT / f"{name}-{digest[:DIGEST_LENGTH_IN_NAME]}")


@contextmanager
def claimed(folder: RunFolder, identity: Identity) -> Generator[None]:
    """Holds the folder for this process.

    Raises:
        UserError: the folder holds another run.
        FolderBusy: another process uses it.
    """
    busy = FolderBusy(f"{folder.path}: another process uses this run; wait for it, or give --workdir another folder")
    with claimed_folder(folder.path, busy):
        folder.check_links()
        remove_leftovers(folder.figures)
        recorded = folder.identity()
        if recorded is not None and recorded.get("digest") != identity.digest:
            raise UserError(
                f"--workdir={folder.path}: holds the run of another config, data or weights (digest "
                f"{recorded.get('digest')}, this one is {identity.digest}); its config.json says which. Give --workdir "
                "another folder, or leave it out: then each config has its own"
            )
        yield


def read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file, or None where there is no file.

    Raises:
        UserError: the file holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise_if_of_the_system(error)
        raise UserError(f"{path}: cannot be read ({error}); remove it to continue without it") from error
    if not isinstance(value, dict):
        found = type(value).__name__
        raise UserError(f"{path}: contains {found}, expected a JSON object; remove it to continue without it")
    return cast(dict[str, Any], value)

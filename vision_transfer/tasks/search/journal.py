"""`search.json`: what a search planned and did, written before each step, so that it goes on where it was stopped.

The runs themselves are in `runs/`. A round is written before its first run starts; a candidate's entry has the folders
and seconds of its runs, one or a run for each fold, or why one failed. All decisions are functions of these values.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vision_transfer.errors import UserError
from vision_transfer.runs.folder import read_json
from vision_transfer.runtime.files import write_json
from vision_transfer.tasks.search.candidates import AVERAGE, LINEAR, Base, Candidate, Tuning
from vision_transfer.tasks.search.rounds import Round

JOURNAL = "search.json"
# The times of an `Entry`.
SECONDS = ("seconds", "forward_seconds", "training_seconds", "total_seconds")


@dataclass(frozen=True)
class Entry:
    """The outcome of a candidate.

    Attributes:
        folders: of its runs; none where one failed.
        seconds: that they took, without those that were done before for another candidate.
        forward_seconds: of features and evaluation, of all its runs.
        training_seconds: of the epochs of fine-tuning, without compiling.
        total_seconds: of all its runs.
        error: the reason for the failure, or None.
    """

    folders: tuple[Path, ...]
    seconds: float
    forward_seconds: float = 0.0
    training_seconds: float = 0.0
    total_seconds: float = 0.0
    error: str | None = None


class Journal:
    """The rounds of a search and the entries of their runs, in the file of its folder."""

    def __init__(self, folder: Path, digest: str, product_seconds: float) -> None:
        """Reads the journal of a search in a folder, or begins one.

        Args:
            folder: of the search.
            digest: of its config and data.
            product_seconds: seconds per operation of a matrix product here.

        Raises:
            UserError: the file is damaged, or of a search with another digest.
        """
        self.file = folder / JOURNAL
        self.digest = digest
        self.product_seconds = product_seconds
        self.rounds: list[Round] = []
        self.entries: dict[Candidate, Entry] = {}
        self.tested: list[Candidate] = []
        # They are tried again.
        self.failed_before: set[Candidate] = set()
        content = read_json(self.file)
        if content is None:
            return
        if content.get("digest") != digest:
            raise UserError(
                f"{self.file}: is of another search (other data, or another config); give another --workdir, or --rerun"
            )
        try:
            self._read(content)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{self.file}: is damaged or was edited ({error!r}); remove it to search again (finished runs are kept)"
            ) from error

    def begin(self, planned: Round) -> None:
        """Records a round before its runs."""
        self.rounds.append(planned)
        self._write()

    def note(self, candidate: Candidate, entry: Entry) -> None:
        """Records what a candidate's run came to."""
        if candidate in self.failed_before:
            self.failed_before.remove(candidate)
            entry = replace(entry, seconds=entry.seconds + self.entries[candidate].seconds)
        self.entries[candidate] = entry
        self._write()

    def note_test(self, candidate: Candidate) -> None:
        """Records that the test split is used for this candidate."""
        if candidate not in self.tested:
            self.tested.append(candidate)
            self._write()

    @property
    def seconds(self) -> float:
        """Seconds of all runs so far."""
        return sum(entry.seconds for entry in self.entries.values())

    def _read(self, content: dict[str, Any]) -> None:
        self.product_seconds = float(content["product_seconds"])
        for planned in content["rounds"]:
            candidates = [_candidate(run) for run in planned["runs"]]
            self.rounds.append(Round(str(planned["title"]), tuple(candidates), float(planned["seconds"])))
            for candidate, run in zip(candidates, planned["runs"], strict=True):
                if "seconds" in run:
                    folders = tuple(map(Path, run["folders"]))
                    seconds = (float(run[name]) for name in SECONDS)
                    self.entries[candidate] = Entry(folders, *seconds, error=run.get("error"))
        self.failed_before = {candidate for candidate, entry in self.entries.items() if entry.error is not None}
        self.tested = [_candidate(run) for run in content["tested"]]

    def _write(self) -> None:
        rounds = [
            {
                "title": planned.title,
                "seconds": planned.seconds,
                "runs": [_as_json(one) | self._entry(one) for one in planned.candidates],
            }
            for planned in self.rounds
        ]
        content = {
            "digest": self.digest,
            "product_seconds": self.product_seconds,
            "rounds": rounds,
            "tested": list(map(_as_json, self.tested)),
        }
        write_json(self.file, content)

    def _entry(self, candidate: Candidate) -> dict[str, Any]:
        entry = self.entries.get(candidate)
        if entry is None:
            return {}
        found: dict[str, Any] = {name: round(getattr(entry, name), 3) for name in SECONDS}
        found["folders"] = list(map(str, entry.folders))
        return found | ({} if entry.error is None else {"error": entry.error})


def _as_json(candidate: Candidate) -> dict[str, Any]:
    base, tuning = candidate.base, candidate.tuning
    values: dict[str, Any] = {"name": candidate.name, "backbone": base.backbone, "image_size": base.image_size}
    values |= {} if base.pooling == AVERAGE else {"pooling": base.pooling}
    values["head"] = candidate.head
    if tuning is not None:
        values |= {"freeze": tuning.freeze, "lr": tuning.lr, "epochs": tuning.epochs}
        values |= {"on_first_fold": True} if candidate.on_first_fold else {}
    return values


def _candidate(values: dict[str, Any]) -> Candidate:
    base = Base(str(values["backbone"]), int(values["image_size"]), str(values.get("pooling", AVERAGE)))
    if "freeze" not in values:
        return Candidate(base, str(values.get("head", LINEAR)))
    tuning = Tuning(str(values["freeze"]), float(values["lr"]), int(values["epochs"]))
    return Candidate(base, tuning=tuning, on_first_fold=bool(values.get("on_first_fold", False)))

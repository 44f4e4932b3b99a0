"""The table of predictions: a CSV file that grows by whole batches under another name until it is finished.

A killed prediction leaves `OUT.unfinished-DIGEST`; the same command goes on behind its last whole batch and ends with
the file that an undisturbed one writes, byte for byte. DIGEST is that of all that determines the numbers, so nothing
else is ever continued.
"""

import csv
import glob
import io
import os
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vision_transfer.errors import UserError
from vision_transfer.predict.image_files import shown
from vision_transfer.predict.predictor import Prediction
from vision_transfer.runtime.files import name_synced

FIXED_COLUMNS = ("file", "class", "probability", "error")
# What a power cut costs at most; a kill costs a batch.
SECONDS_BETWEEN_SYNCS = 10.0
# As many as tell any two float32 apart.
SIGNIFICANT_DIGITS = 9
# The summary names these; all are in the table.
ERRORS_KEPT = 5


@dataclass(frozen=True)
class Table:
    """Where predictions go.

    Attributes:
        out: the finished file.
        classes: names, in the order of the columns.
        digest: of all that determines the numbers.
        batch_size: rows that are computed together.
    """

    out: Path
    classes: tuple[str, ...]
    digest: str
    batch_size: int

    @property
    def unfinished(self) -> Path:
        """The file while it grows."""
        return self.out.with_name(f"{self.out.name}.unfinished-{self.digest}")

    @property
    def columns(self) -> tuple[str, ...]:
        """The header."""
        return (*FIXED_COLUMNS, *(f"probability_{name}" for name in self.classes))


@dataclass
class Content:
    """What the growing file holds.

    Attributes:
        rows: how many.
        size: in bytes.
        counts: rows by class; under "" those with an error.
        errors: the first files with an error, as they are shown, and why.
    """

    rows: int = 0
    size: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    errors: list[tuple[str, str]] = field(default_factory=list)

    def add(self, row: Sequence[str], size: int) -> None:
        """Counts a row."""
        file, class_name, _, error = row[: len(FIXED_COLUMNS)]
        self.rows += 1
        self.size += size
        self.counts[class_name] += 1
        if error and len(self.errors) < ERRORS_KEPT:
            self.errors.append((file, error))


def resume(table: Table, files: Sequence[str]) -> Content:
    """Whole batches that an earlier command with the same numbers left for these files; begins a file otherwise.

    What was left by other numbers for the same `out` is removed.

    Raises:
        UserError: the folder cannot be written, or `out` is a folder.
    """
    header = _line(table.columns)
    if table.out.is_dir():
        raise UserError(f"--out={table.out}: is a folder; give a file, such as {table.out / 'predictions.csv'}")
    try:
        table.out.parent.mkdir(parents=True, exist_ok=True)
        for leftover in table.out.parent.glob(f"{glob.escape(table.out.name)}.unfinished-*"):
            if leftover != table.unfinished:
                leftover.unlink(missing_ok=True)
        content = _kept(table, files, header)
        if not content.size:
            table.unfinished.write_bytes(header)
            content.size = len(header)
        os.truncate(table.unfinished, content.size)
    except OSError as error:
        raise UserError(f"--out={table.out}: cannot be written ({error.strerror}); give another file") from error
    return content


def append(table: Table, chunks: Iterable[list[Prediction]], content: Content) -> None:
    """Writes chunks behind what is there, adds them to `content`, and gives the file its name."""
    synced = time.monotonic()
    with table.unfinished.open("ab") as stream:
        for chunk in chunks:
            rows = [_row(prediction, len(table.classes)) for prediction in chunk]
            lines = [_line(row) for row in rows]
            stream.write(b"".join(lines))
            stream.flush()
            if time.monotonic() - synced > SECONDS_BETWEEN_SYNCS:
                os.fsync(stream.fileno())
                synced = time.monotonic()
            for row, line in zip(rows, lines, strict=True):
                content.add(row, len(line))
    name_synced(table.unfinished, table.out)


def _kept(table: Table, files: Sequence[str], header: bytes) -> Content:
    """The rows of the unfinished file that are whole and of these files in this order, cut at a whole batch."""
    content, batch = Content(), Content()
    if not table.unfinished.exists():
        return content
    with table.unfinished.open("rb") as stream:
        if stream.read(len(header)) != header:
            return content
        content.size = len(header)
        for file, line in zip(files, stream, strict=False):
            row = _parsed(line)
            if row is None or len(row) != len(table.columns) or row[0] != shown(file):
                break
            batch.add(row, len(line))
            if batch.rows == table.batch_size or content.rows + batch.rows == len(files):
                content = _joined(content, batch)
                batch = Content()
    return content


def _joined(first: Content, second: Content) -> Content:
    errors = [*first.errors, *second.errors][:ERRORS_KEPT]
    return Content(first.rows + second.rows, first.size + second.size, first.counts + second.counts, errors)


def _row(prediction: Prediction, classes: int) -> list[str]:
    file = shown(prediction.file)
    if prediction.probabilities is None:
        return [file, "", "", prediction.error or "", *[""] * classes]
    shares = [f"{share:.{SIGNIFICANT_DIGITS}g}" for share in prediction.probabilities]
    return [file, prediction.class_name or "", f"{prediction.probability:.{SIGNIFICANT_DIGITS}g}", "", *shares]


def _line(row: Sequence[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(row)
    return text.getvalue().encode()


def _parsed(line: bytes) -> list[str] | None:
    """The fields of a whole line, or None."""
    if not line.endswith(b"\n"):
        return None
    try:
        return next(csv.reader([line.decode()]))
    except (UnicodeDecodeError, csv.Error, StopIteration):
        return None

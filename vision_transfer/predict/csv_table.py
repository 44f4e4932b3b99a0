"""The table of predictions: a CSV file that grows by complete batches under a temporary name until it is finished.

A killed command leaves `OUT.unfinished-DIGEST`, and beside it a file `….sha256` with a line for each batch. The same
command resumes after the last complete batch and produces the same file, byte for byte, as an uninterrupted one. DIGEST
covers everything that determines the numbers, so rows of another run or environment are never continued; rows that were
damaged or edited, from the first such batch on, are computed again.
"""

import csv
import glob
import hashlib
import io
import os
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vision_transfer.data.formats.image_files import display
from vision_transfer.errors import UserError
from vision_transfer.predict.predictor import Prediction
from vision_transfer.runtime.files import name_synced

FIXED_COLUMNS = ("file", "class", "probability", "error")
# The most that a power cut can lose; a kill loses at most a batch.
SECONDS_BETWEEN_SYNCS = 10.0
# Enough to distinguish any two float32 values.
SIGNIFICANT_DIGITS = 9
# For the summary; the table has all of them.
ERRORS_KEPT = 5


@dataclass(frozen=True)
class Table:
    """The file of predictions, which grows by `batch_size` rows; `digest` is of all that determines the numbers.

    The last column is `decision` if the run `decides` by a threshold.
    """

    out: Path
    classes: tuple[str, ...]
    digest: str
    batch_size: int
    decides: bool = False

    @property
    def unfinished(self) -> Path:
        """The file while it grows."""
        return self.out.with_name(f"{self.out.name}.unfinished-{self.digest}")

    @property
    def digests(self) -> Path:
        """The file of digests while the table grows: each is of a batch's bytes and the digest before it."""
        return self.unfinished.with_name(f"{self.unfinished.name}.sha256")

    @property
    def columns(self) -> tuple[str, ...]:
        """The header."""
        probabilities = (f"probability_{name}" for name in self.classes)
        return (*FIXED_COLUMNS, *probabilities, *(["decision"] if self.decides else []))


@dataclass
class Content:
    """Summary of the growing file: its rows, also by class or decision ("" for an error), its bytes, and first errors.

    `digests` are those of its batches.
    """

    rows: int = 0
    digests: list[str] = field(default_factory=list)
    size: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    errors: list[tuple[str, str]] = field(default_factory=list)

    def add(self, row: Sequence[str], size: int, *, decides: bool) -> None:
        """Counts a row, by its decision where the run `decides`."""
        file, class_name, _, error = row[: len(FIXED_COLUMNS)]
        self.rows += 1
        self.size += size
        self.counts[row[-1] if decides else class_name] += 1
        if error and len(self.errors) < ERRORS_KEPT:
            self.errors.append((file, error))


def resume(table: Table, files: Sequence[str]) -> Content:
    """The complete batches that a killed command left for these files and numbers, or a new file with the header.

    Unfinished files of the same `out` with another digest are removed.

    Raises:
        UserError: the folder is not writable, or `out` is a folder.
    """
    header = _line(table.columns)
    if table.out.is_dir():
        raise UserError(f"--out={table.out}: is a folder; give a file, such as {table.out / 'predictions.csv'}")
    try:
        table.out.parent.mkdir(parents=True, exist_ok=True)
        for leftover in table.out.parent.glob(f"{glob.escape(table.out.name)}.unfinished-*"):
            if leftover not in (table.unfinished, table.digests):
                leftover.unlink(missing_ok=True)
        content = _kept(table, files, header)
        if not content.size:
            table.unfinished.write_bytes(header)
            content.size = len(header)
        os.truncate(table.unfinished, content.size)
        table.digests.write_text("".join(f"{digest}\n" for digest in content.digests), encoding="ascii")
    except OSError as error:
        raise UserError(f"--out={table.out}: cannot be written ({error.strerror}); give another file") from error
    return content


def append(table: Table, chunks: Iterable[list[Prediction]], content: Content) -> None:
    """Appends chunks to the unfinished file, counts them in `content`, and gives the finished file its name."""
    synced = time.monotonic()
    with table.unfinished.open("ab") as stream, table.digests.open("a", encoding="ascii") as digests:
        for chunk in chunks:
            rows = [_row(prediction, table) for prediction in chunk]
            lines = [_line(row) for row in rows]
            stream.write(b"".join(lines))
            stream.flush()
            content.digests.append(_chained(table, content, lines))
            digests.write(f"{content.digests[-1]}\n")
            digests.flush()
            if time.monotonic() - synced > SECONDS_BETWEEN_SYNCS:
                os.fsync(stream.fileno())
                os.fsync(digests.fileno())
                synced = time.monotonic()
            for row, line in zip(rows, lines, strict=True):
                content.add(row, len(line), decides=table.decides)
    name_synced(table.unfinished, table.out)
    table.digests.unlink(missing_ok=True)


def _kept(table: Table, files: Sequence[str], header: bytes) -> Content:
    """The complete, undamaged batches at the start of the unfinished file that are of these files in this order."""
    content = Content()
    if not table.unfinished.exists() or not table.digests.exists():
        return content
    written = table.digests.read_text(encoding="ascii", errors="replace").splitlines()
    with table.unfinished.open("rb") as stream:
        if stream.read(len(header)) != header:
            return content
        content.size = len(header)
        batch: list[tuple[list[str], bytes]] = []
        for file, line in zip(files, stream, strict=False):
            row = _parsed(line)
            if row is None or len(row) != len(table.columns) or row[0] != display(file):
                break
            batch.append((row, line))
            if len(batch) == table.batch_size or content.rows + len(batch) == len(files):
                digest = _chained(table, content, [whole for _, whole in batch])
                if written[len(content.digests) : len(content.digests) + 1] != [digest]:
                    break
                content.digests.append(digest)
                for fields, whole in batch:
                    content.add(fields, len(whole), decides=table.decides)
                batch.clear()
    return content


def _chained(table: Table, content: Content, lines: Sequence[bytes]) -> str:
    """Digest of the next batch and, by the digest before it, of all before it."""
    before = content.digests[-1] if content.digests else table.digest
    return hashlib.sha256(before.encode() + b"".join(lines)).hexdigest()


def _row(prediction: Prediction, table: Table) -> list[str]:
    file = display(prediction.file)
    if prediction.probabilities is None:
        return [file, "", "", prediction.error or "", *[""] * (len(table.columns) - len(FIXED_COLUMNS))]
    shares = [f"{share:.{SIGNIFICANT_DIGITS}g}" for share in prediction.probabilities]
    decision = [prediction.decision or ""] if table.decides else []
    return [
        file,
        prediction.class_name or "",
        f"{prediction.probability:.{SIGNIFICANT_DIGITS}g}",
        "",
        *shares,
        *decision,
    ]


def _line(row: Sequence[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(row)
    return text.getvalue().encode()


def _parsed(line: bytes) -> list[str] | None:
    """The fields of a line, or None if it is incomplete or damaged."""
    if not line.endswith(b"\n"):
        return None
    try:
        return next(csv.reader([line.decode()]))
    except (UnicodeDecodeError, csv.Error, StopIteration):
        return None

"""A table of pictures: a CSV file with the columns `path`, `label` and, where the data is split already, `split`.

Paths count from the CSV's folder. Other columns are passed over. Commas, semicolons or tabs stand between the values.
"""

import csv
import hashlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from vision_transfer.data.dataset import SPLITS, Skipped
from vision_transfer.data.formats.folder import DEFAULT_SIZE, SPLIT_FOLDERS
from vision_transfer.data.formats.image_files import Named, display, read_examples
from vision_transfer.data.images.decode import UndecodableError, read_file
from vision_transfer.data.source import Examples, Source
from vision_transfer.errors import UserError, nearest_names
from vision_transfer.runtime.console import Screen

PATH, LABEL, SPLIT = "path", "label", "split"
SUFFIXES = (".csv", ".tsv")
EXPECTED = "a CSV file whose first line names the columns path, label and, if you like, split"
_SEPARATORS = ",;\t"
_SPLIT_OF = {name: split for split, names in SPLIT_FOLDERS.items() for name in names}


@dataclass(frozen=True)
class _Row:
    """A line of the table: its number, and its values."""

    line: int
    path: str
    label: str
    split: str


def csv_source(file: Path, screen: Screen) -> Source:
    """Reads the table and hashes its files; decodes nothing. Files that cannot be read are left out.

    Raises:
        UserError: no such file, no text, a column or value that is missing, a path that comes twice, an unknown
            split, a class missing from a split, or fewer than two classes; line and column are named.
    """
    rows = list(_rows(file))
    classes = _classes(file, rows)
    splits: dict[str, Examples] = {}
    skipped: list[Skipped] = []
    content = hashlib.blake2b(digest_size=16)
    for split in (name for name in SPLITS if any(row.split == name for row in rows)):
        named = [
            Named(file.parent / row.path, display(row.path), classes[row.label]) for row in rows if row.split == split
        ]
        splits[split], left_out = read_examples(named, f"Reading {split}", screen)
        content.update(b"".join(splits[split].contents))
        lines = {display(row.path): row.line for row in rows}
        skipped.extend(Skipped(item.file, f"line {lines[item.file]}: {item.reason}") for item in left_out)
    return Source(
        name=file.resolve().stem,
        classes=tuple(classes),
        splits=splits,
        content=content.hexdigest(),
        default_size=DEFAULT_SIZE,
        skipped=tuple(skipped),
        note=f"images listed in {display(str(file))}.",
        expected=EXPECTED,
        has_near_duplicates=True,
    )


def is_csv(path: Path) -> bool:
    """Whether a path is named like a table."""
    return path.suffix.lower() in SUFFIXES


def _rows(file: Path) -> Iterator[_Row]:
    """The lines of the table, checked one by one."""
    text = _text(file)
    header_line = text.partition("\n")[0]
    separator = max(_SEPARATORS, key=header_line.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    where = f"--config.dataset.root: {display(str(file))}"
    seen: dict[str, int] = {}
    try:
        header = [name.strip().lower() for name in next(reader, [])]
        columns = _columns(where, header)
        for values in reader:
            if not any(value.strip() for value in values):
                continue
            row = _row(f"{where}, line {reader.line_num}", reader.line_num, columns, values)
            if row.path in seen:
                raise UserError(
                    f"{where}, line {row.line}, column {PATH}: {row.path} is in line {seen[row.path]} already. "
                    "Keep one of the two."
                )
            seen[row.path] = row.line
            yield row
    except csv.Error as error:
        raise UserError(f"{where}, line {reader.line_num}: cannot be read as CSV ({error}).") from None


def _row(where: str, line: int, columns: Mapping[str, int], values: list[str]) -> _Row:
    found: dict[str, str] = {}
    for name, place in columns.items():
        found[name] = values[place].strip() if place < len(values) else ""
        if not found[name]:
            raise UserError(f"{where}, column {name}: is empty. Every picture needs one.")
        if "\0" in found[name]:
            raise UserError(f"{where}, column {name}: holds a zero byte.")
    split = found.get(SPLIT, "train").lower()
    if split not in _SPLIT_OF:
        raise UserError(f"{where}, column {SPLIT}: is {found[SPLIT]!r}; {nearest_names(split, list(_SPLIT_OF))}")
    return _Row(line, found[PATH], found[LABEL], _SPLIT_OF[split])


def _columns(where: str, header: list[str]) -> dict[str, int]:
    """The place of each column that is read."""
    for name in (PATH, LABEL):
        if name not in header:
            columns = ", ".join(filter(None, header)) or "nothing"
            raise UserError(f"{where}, line 1: has no column {name} (it has {columns}). Expected {EXPECTED}.")
    twice = next((name for name in (PATH, LABEL, SPLIT) if header.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{where}, line 1: has the column {twice} twice. Keep one of them.")
    return {name: header.index(name) for name in (PATH, LABEL, SPLIT) if name in header}


def _classes(file: Path, rows: list[_Row]) -> dict[str, int]:
    """The label of each class, in the order of their names, which must be the same in every split."""
    where = f"--config.dataset.root: {display(str(file))}"
    names = sorted({row.label for row in rows})
    if len(names) < 2:
        found = f"has the class {names[0]} only" if names else "lists no pictures"
        raise UserError(f"{where}, column {LABEL}: {found}. At least two classes are needed; expected {EXPECTED}.")
    for split in sorted({row.split for row in rows}):
        missing = sorted(set(names) - {row.label for row in rows if row.split == split})
        if missing:
            raise UserError(
                f"{where}: no picture of the class {missing[0]} in {split}. Every class must be in every split."
            )
    if not any(row.split == "train" for row in rows):
        raise UserError(f"{where}, column {SPLIT}: no picture is in train.")
    return {name: label for label, name in enumerate(names)}


def _text(file: Path) -> str:
    where = f"--config.dataset.root: {display(str(file))}"
    try:
        return read_file(file).decode("utf-8-sig")
    except UndecodableError as reason:
        raise UserError(f"{where}: {reason}. Expected {EXPECTED}.") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(f"{where}, line {line}: is not UTF-8 text. Save the table as CSV in UTF-8.") from None

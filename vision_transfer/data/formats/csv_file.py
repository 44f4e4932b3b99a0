"""A table of images: a CSV file with the columns `path`, `label` and, if the data is already split, `split`.

Paths are relative to the CSV's folder, with `/` between their parts, or backslashes as on Windows. A column `group`, or
one that the config names, says which images belong together. Other columns are ignored. Commas, semicolons or tabs
separate the values.
"""

import csv
import io
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from vision_transfer.data.dataset import SPLIT_NAMES, SPLITS, split_named
from vision_transfer.data.formats.class_names import check_not_alike, class_name
from vision_transfer.data.formats.image_files import Listed, display, files_source, stamps_file
from vision_transfer.data.images.decode import UndecodableError, read_file
from vision_transfer.data.source import Source
from vision_transfer.errors import UserError, nearest_names
from vision_transfer.runtime.console import Screen

PATH, LABEL, SPLIT, GROUP = "path", "label", "split", "group"
SUFFIXES = (".csv", ".tsv")
EXPECTED = "a CSV file whose first line names the columns path, label and, optionally, split"
# Ten million long paths.
MOST_BYTES = 2**31
_SEPARATORS = ",;\t"
_SPLIT_NAMES = [name for names in SPLIT_NAMES.values() for name in names]


@dataclass(frozen=True)
class _Row:
    line: int
    path: str
    label: str
    split: str
    group: str


def csv_source(file: Path, screen: Screen, group: str | None = None, cache_dir: Path | None = None) -> Source:
    """Reads the table and digests its files; decodes nothing. Unreadable files are left out.

    With a cache, files that have not changed since are not read again.

    `group` is the column that names what images belong to; by default the column `group`, if there is one.

    Raises:
        UserError: no such file, not text, a missing column or value, a repeated path, an unknown split, a class missing
            from a split, or fewer than two classes; the message names line and column.
    """
    rows = list(_rows(file, group))
    classes = _classes(file, rows)
    listed: dict[str, Listed] = {}
    for split in SPLITS:
        if own := [row for row in rows if row.split == split]:
            listed[split] = Listed(
                folders=[("", [str(file.parent / row.path) for row in own])],
                files=[display(row.path) for row in own],
                labels=[classes[row.label] for row in own],
                where=[f"line {row.line}: " for row in own],
                groups=[row.group for row in own],
            )
    note = f"images listed in {display(str(file))}."
    return files_source(
        file.resolve().stem,
        tuple(classes),
        listed,
        note=note,
        expected=EXPECTED,
        screen=screen,
        stamps=stamps_file(cache_dir, file),
    )


def is_csv(path: Path) -> bool:
    """Whether a path has the suffix of a table."""
    return path.suffix.lower() in SUFFIXES


def _rows(file: Path, group: str | None) -> Iterator[_Row]:
    """The lines of the table, checked one by one."""
    text = _text(file)
    header_line = text.partition("\n")[0]
    separator = max(_SEPARATORS, key=header_line.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    where = f"--config.dataset.root: {display(str(file))}"
    seen: dict[str, _Row] = {}
    try:
        header = [name.strip().lower() for name in next(reader, [])]
        columns = _columns(where, header, group)
        for values in reader:
            if not any(value.strip() for value in values):
                continue
            row = _row(f"{where}, line {reader.line_num}", reader.line_num, columns, values, file.parent)
            other = seen.setdefault(os.path.normpath(row.path), row)
            if other is not row:
                as_what = "" if other.label == row.label else f" as {other.label}, here as {row.label}"
                raise UserError(
                    f"{where}, line {row.line}, column {PATH}: {display(row.path)} is already in line {other.line}"
                    f"{as_what}. Keep one of the two."
                )
            yield row
    except csv.Error as error:
        raise UserError(f"{where}, line {reader.line_num}: cannot be read as CSV ({error}).") from None


def _row(where: str, line: int, columns: Mapping[str, int], values: list[str], folder: Path) -> _Row:
    found: dict[str, str] = {}
    for name, place in columns.items():
        found[name] = values[place].strip() if place < len(values) else ""
        if not found[name] and name != GROUP:
            raise UserError(f"{where}, column {name}: is empty. Every image needs one.")
        if "\0" in found[name]:
            raise UserError(f"{where}, column {name}: contains a zero byte.")
    split = split_named(found.get(SPLIT, "train"))
    if split is None:
        raise UserError(f"{where}, column {SPLIT}: is {found[SPLIT]!r}; {nearest_names(found[SPLIT], _SPLIT_NAMES)}")
    return _Row(line, _with_slashes(found[PATH], folder), class_name(found[LABEL]), split, found.get(GROUP, ""))


def _with_slashes(path: str, folder: Path) -> str:
    """A path written on Windows with `/` between its parts; a file whose name has a backslash keeps it."""
    return path.replace("\\", "/") if "\\" in path and not os.path.lexists(folder / path) else path


def _columns(where: str, header: list[str], group: str | None) -> dict[str, int]:
    """The index of each column that is read."""
    for name in (PATH, LABEL):
        if name not in header:
            columns = ", ".join(filter(None, header)) or "nothing"
            raise UserError(f"{where}, line 1: has no column {name} (it has {columns}). Expected {EXPECTED}.")
    wanted = (group or GROUP).strip().lower()
    if group is not None and wanted not in header:
        columns = ", ".join(filter(None, header))
        raise UserError(f"config.dataset.grouped_by: the table has no column {group!r}; it has {columns}")
    twice = next((name for name in (PATH, LABEL, SPLIT, wanted) if header.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{where}, line 1: has the column {twice} twice. Keep one of them.")
    columns_of = {PATH: PATH, LABEL: LABEL, SPLIT: SPLIT, GROUP: wanted}
    return {name: header.index(column) for name, column in columns_of.items() if column in header}


def _classes(file: Path, rows: list[_Row]) -> dict[str, int]:
    """The label of each class, by name; the classes must be the same in every split."""
    where = f"--config.dataset.root: {display(str(file))}"
    names = sorted({row.label for row in rows})
    if len(names) < 2:
        found = f"has only the class {names[0]}" if names else "lists no images"
        raise UserError(f"{where}, column {LABEL}: {found}. At least two classes are needed; expected {EXPECTED}.")
    check_not_alike(names, f"{where}, column {LABEL}")
    for split in sorted({row.split for row in rows}):
        missing = sorted(set(names) - {row.label for row in rows if row.split == split})
        if missing:
            raise UserError(
                f"{where}: no image of the class {missing[0]} in {split}. Every class must be in every split."
            )
    if not any(row.split == "train" for row in rows):
        raise UserError(f"{where}, column {SPLIT}: no image is in train.")
    return {name: label for label, name in enumerate(names)}


def _text(file: Path) -> str:
    where = f"--config.dataset.root: {display(str(file))}"
    try:
        return read_file(file, most=MOST_BYTES).decode("utf-8-sig")
    except UndecodableError as reason:
        raise UserError(f"{where}: {reason}. Expected {EXPECTED}.") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(f"{where}, line {line}: is not UTF-8 text. Save the table as CSV in UTF-8.") from None

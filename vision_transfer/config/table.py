"""The table of all configuration fields as a page of Markdown: `python -m vision_transfer.config.table`."""

import sys
from collections.abc import Mapping
from itertools import groupby

from vision_transfer.config.fields import FIELDS, STAGE_FIELDS, Field, field_types

HEAD = """\
# Configuration

Every field with its type, default and meaning. `vision-transfer --help=config` prints the same. A config file sets a
field as in `config.dataset.image_size = 128`, the command line as in `--config.dataset.image_size=128`. A bound or a
choice of a list holds for each of its elements. This page is made from `vision_transfer/config/schema.py`
and `vision_transfer/config/task_schema.py`:

    python -m vision_transfer.config.table > docs/configuration.md
"""


def markdown() -> str:
    """The page: a table for each group of fields."""
    stages = {f"stages.NAME.{path}": field for path, field in STAGE_FIELDS.items()}
    parts = [HEAD]
    for fields in (FIELDS, stages):
        for group, paths in groupby(fields, key=lambda path: path.rpartition(".")[0]):
            parts.append(_table(group, list(paths), fields))
    return "\n".join(parts)


def _table(group: str, paths: list[str], fields: Mapping[str, Field]) -> str:
    rows = [
        f"## config{f'.{group}' if group else ''}\n",
        "| field | type | default | meaning |",
        "| --- | --- | --- | --- |",
    ]
    for path in paths:
        field = fields[path]
        default = "" if field.default in (None, "", ()) else f"`{field.default}`"
        kind = field_types(field).replace("|", "\\|")
        rows.append(f"| `{path.rpartition('.')[2]}` | {kind} | {default} | {field.meaning} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    sys.stdout.write(markdown())

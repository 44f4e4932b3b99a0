"""The spelling of references to parts of the user's own: `FILE.py:NAME`, `MODULE:NAME`, with `@DIGEST` in a run."""

import re
from typing import Any

REFERENCE = re.compile(r"(?P<source>.+):(?P<name>[A-Za-z_]\w*)(?:@(?P<digest>[0-9a-f]{16}))?")


def is_reference(value: Any) -> bool:
    """Whether a value of a config is a reference to a part."""
    return isinstance(value, str) and REFERENCE.fullmatch(value) is not None


def name_of(reference: str) -> str:
    """The name of the function, as of a metric in `metrics.jsonl` and `result.json`."""
    parts = REFERENCE.fullmatch(reference)
    assert parts is not None, reference
    return parts["name"]

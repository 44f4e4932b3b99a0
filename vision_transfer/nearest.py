"""Suggestions for a name that does not exist."""

import difflib
from collections.abc import Sequence


def nearest_names(name: str, known: Sequence[str], count: int = 3) -> str:
    """A phrase for an error message: the known names nearest to `name`, or all of them if none is near."""
    near = difflib.get_close_matches(name, known, n=count)
    return f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(known)}"

"""The exception for errors that a user can fix, and suggestions for mistyped names."""

import difflib
from collections.abc import Sequence


class UserError(Exception):
    """An error that the user can fix: a config value, a file, a folder, a download.

    The message names the field or file, what was found, what is allowed, and what to do. The command line prints
    it without a traceback and exits with status 2. Any other exception is a bug and shows its traceback.
    """


def nearest_names(name: str, known: Sequence[str], count: int = 3) -> str:
    """A phrase for an error message: the known names closest to `name`, or all of them if none is close."""
    near = difflib.get_close_matches(name, known, n=count)
    return f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(known)}"

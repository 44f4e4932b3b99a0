"""The exception for errors that a user can fix, suggestions for mistyped names, and text that is safe to print."""

import difflib
import re
from collections.abc import Sequence

# Unicode's control characters and line separators; and the embeddings, overrides and isolates of Unicode Standard
# Annex 9, which make `gpj.exe` read `exe.jpg`.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


# Of the errors of JAX, TensorFlow, PyTorch and ONNX Runtime, which have no class of their own for it.
_OUT_OF_MEMORY = re.compile("RESOURCE_EXHAUSTED|out of memory|failed to allocate memory", re.IGNORECASE)


class UserError(Exception):
    """An error that the user can fix: a config value, a file, a folder, a download.

    The message names the field or file, what was found, what is allowed, and what to do. The command line prints
    it without a traceback and exits with status 2. Any other exception is a bug and shows its traceback.
    """


def is_out_of_memory(error: Exception) -> bool:
    """Whether a library, or Python itself, got less memory than it asked for."""
    return isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(str(error)) is not None


def nearest_names(name: str, known: Sequence[str], otherwise: str = "") -> str:
    """A phrase for an error message: the known names closest to `name`, else `otherwise` or all of them."""
    near = difflib.get_close_matches(name, known)
    return f"did you mean {' or '.join(near)}?" if near else otherwise or f"known are {', '.join(known)}"


def visible(text: str, keep: str = "") -> str:
    """The text with escapes for control characters (such as those that start a terminal's commands) but for `keep`."""
    return _CONTROLS.sub(lambda found: found[0] if found[0] in keep else _escape(found[0]), text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()

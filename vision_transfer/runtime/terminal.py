"""The readers of the output: a terminal that obeys control characters, a pipe that closes early, another encoding."""

import os
import sys
from typing import Any, NoReturn, cast

from rich.console import Console
from rich.text import Text

from vision_transfer.errors import visible

# As of a process that ends by SIGPIPE: 128 and the signal's number.
CLOSED_PIPE_STATUS = 141


class SafeConsole(Console):
    """A console that shows control characters of names and messages as escapes, and ends quietly at a closed pipe."""

    def render_str(self, text: str, **options: Any) -> Text:
        """The text of a line, a cell or a title: no `[…]` is markup; only line breaks and tabs keep their effect."""
        plain: dict[str, Any] = options | {"markup": False, "emoji": False}
        return super().render_str(visible(text, keep="\n\t"), **plain)

    def on_broken_pipe(self) -> None:
        """Called by rich when the reader has gone."""
        self.quiet = True
        leave_closed_pipe()


def accept_all_characters() -> None:
    """Lets characters that the encoding of the output lacks be printed as escapes, instead of ending the process."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def write_out(text: str) -> None:
    """Writes to standard output; ends the process quietly if nobody reads it any more."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        leave_closed_pipe()


def leave_closed_pipe() -> NoReturn:
    """Ends the process without a message; what is still buffered goes nowhere, so that closing it raises no error."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), cast(Any, sys.stdout).fileno())
    sys.exit(CLOSED_PIPE_STATUS)

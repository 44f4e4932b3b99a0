"""What is shown while something long happens: lines, and bars that say how much is done and how long the rest takes."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

# Off a terminal a bar becomes a line now and then.
SECONDS_BETWEEN_LOG_LINES = 15.0

# Called with the number of items done since the last call, and with what to show beside the bar.
Advance = Callable[..., None]


@dataclass(frozen=True)
class Screen:
    """Where output goes. Functions that take long are given one; nothing else prints."""

    console: Console = field(default_factory=Console)

    def say(self, message: RenderableType = "", style: str | None = None) -> None:
        """Prints a line, a table or a panel."""
        self.console.print(message, style=style, highlight=False, soft_wrap=isinstance(message, str))

    @contextmanager
    def bar(self, title: str, total: int, unit: str = "images") -> Iterator[Advance]:
        """Shows progress over `total` items; yields `advance(done, note='')`."""
        if self.console.is_terminal:
            columns = (
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn(unit),
                TimeRemainingColumn(compact=True),
                TextColumn("{task.fields[note]}"),
            )
            with Progress(*columns, console=self.console, transient=True) as progress:
                task = progress.add_task(title, total=total, note="")
                yield lambda done, note="": progress.update(task, advance=done, note=note)
        else:
            yield _log_lines(self, title, total, unit)


def _log_lines(screen: Screen, title: str, total: int, unit: str) -> Advance:
    """Progress as a plain line at most every `SECONDS_BETWEEN_LOG_LINES`."""
    began = said = time.monotonic()
    count = 0

    def advance(done: int, note: str = "") -> None:
        nonlocal said, count
        count += done
        now = time.monotonic()
        if now - said >= SECONDS_BETWEEN_LOG_LINES and count:
            said = now
            left = (now - began) / count * (total - count)
            screen.say(f"{title}: {count} of {total} {unit}, about {duration(left)} left  {note}".rstrip())

    return advance


def duration(seconds: float) -> str:
    """Seconds for a reader: `8.2 s`, `3 min 20 s`, `2 h 05 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"

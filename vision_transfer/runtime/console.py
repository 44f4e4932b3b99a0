"""Output during long operations: lines, and progress bars with the pace and the time left."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from vision_transfer.runtime.terminal import SafeConsole

# Where output is no terminal, a line at most this often replaces the bar.
SECONDS_BETWEEN_LOG_LINES = 15.0
# Rates from here on are shown without decimals.
LEAST_WHOLE_RATE = 10

# Called with the number of items done since the last call, and with a note to show beside the bar.
Advance = Callable[..., None]


@dataclass(frozen=True)
class Screen:
    """The destination of all output, passed to every function that prints or takes long.

    Whatever advances or prints is a point where the process may stop: `check` raises there if it was asked to
    (`StopSignal.check`).
    """

    console: Console = field(default_factory=SafeConsole)
    check: Callable[[], None] = lambda: None

    def silent(self) -> "Screen":
        """A screen that shows nothing, with the same points to stop."""
        return replace(self, console=SafeConsole(quiet=True, force_terminal=False))

    def say(self, message: RenderableType = "", style: str | None = None) -> None:
        """Prints a line as it is (no `[…]` is markup), a table or a panel."""
        self.check()
        self.console.print(message, style=style, highlight=False, markup=False, soft_wrap=isinstance(message, str))

    @contextmanager
    def bar(self, title: str, total: int, unit: str = "images", images_each: int | None = None) -> Iterator[Advance]:
        """Shows progress over `total` items with images per second; yields `advance(done, note='')`.

        If the items are not images but, for example, steps, `images_each` is the number of images per item.
        """
        images_each = images_each or int(unit == "images")
        if self.console.is_terminal:
            columns = (
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn(unit),
                TimeRemainingColumn(compact=True),
                TextColumn("{task.fields[note]}", markup=False),
            )
            with Progress(*columns, console=self.console, transient=True) as progress:
                task = progress.add_task(title, total=total, note="")
                yield self._advance(
                    lambda count, rate, notes: progress.update(task, completed=count, note="  ".join(notes)),
                    images_each,
                )
            return
        printed = time.monotonic()

        def show(count: int, rate: float | None, notes: list[str]) -> None:
            nonlocal printed
            now = time.monotonic()
            if rate is not None and now - printed >= SECONDS_BETWEEN_LOG_LINES:
                printed = now
                left = f"about {duration((total - count) / rate)} left"
                self.say(f"{title}: {', '.join([f'{count} of {total} {unit}', left, *notes])}")

        yield self._advance(show, images_each)

    def _advance(self, show: Callable[[int, float | None, list[str]], None], images_each: int) -> Advance:
        """Checks whether to stop, and calls `show` with the items done, the items per second if known, and the notes.

        The pace counts from the first call, which includes compilation and, if an operation is resumed, its earlier
        items.
        """
        count, first = 0, None

        def advance(done: int, note: str = "") -> None:
            nonlocal count, first
            self.check()
            count += done
            now = time.monotonic()
            first = first or (now, count)
            seconds, items = now - first[0], count - first[1]
            rate = items / seconds if seconds > 0 and items > 0 else None
            images = (rate or 0) * images_each
            pace = (
                f"{images:,.0f} images/s" if images >= LEAST_WHOLE_RATE else f"{images:.2g} images/s" if images else ""
            )
            show(count, rate, [part for part in (pace, note) if part])

        return advance


def duration(seconds: float) -> str:
    """Seconds as text: `8.2 s`, `3 min 20 s`, `2 h 05 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"

"""What is shown while something long happens: lines, and bars that say how much is done and how long the rest takes."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

# Off a terminal a bar becomes a line now and then.
SECONDS_BETWEEN_LOG_LINES = 15.0
# From so many images a second on, parts of an image are not shown.
LEAST_WHOLE_RATE = 10

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
    def bar(self, title: str, total: int, unit: str = "images", images_each: int | None = None) -> Iterator[Advance]:
        """Shows progress over `total` items, with images a second; yields `advance(done, note='')`.

        Args:
            title: what is done.
            total: number of items.
            unit: what an item is.
            images_each: how many images an item stands for, where it is no image but a step.
        """
        pace = _Pace(images_each or (1 if unit == "images" else None))
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

                def advance(done: int, note: str = "") -> None:
                    pace.took(done)
                    shown = "  ".join(part for part in (pace.images_per_second(), note) if part)
                    progress.update(task, advance=done, note=shown)

                yield advance
        else:
            yield _log_lines(self, title, total, unit, pace)


@dataclass
class _Pace:
    """Items a second since the first call: before it come compilation and, where something goes on, earlier work.

    Attributes:
        images_each: images that an item stands for, or None.
        count: items so far.
    """

    images_each: int | None
    count: int = 0
    _first: tuple[float, int] | None = None
    _now: float = 0.0

    def took(self, done: int) -> None:
        """Notes that items are done."""
        self.count += done
        self._now = time.monotonic()
        if self._first is None:
            self._first = self._now, self.count

    def per_second(self) -> float | None:
        """Items a second, or None before it is known."""
        if self._first is None:
            return None
        since, before = self._first
        return (self.count - before) / (self._now - since) if self._now > since and self.count > before else None

    def images_per_second(self) -> str:
        """`120 images/s`, or nothing before it is known."""
        rate = self.per_second()
        if rate is None or self.images_each is None:
            return ""
        images = rate * self.images_each
        return f"{images:,.0f} images/s" if images >= LEAST_WHOLE_RATE else f"{images:.2g} images/s"


def _log_lines(screen: Screen, title: str, total: int, unit: str, pace: _Pace) -> Advance:
    """Progress as a plain line at most every `SECONDS_BETWEEN_LOG_LINES`."""
    said = time.monotonic()

    def advance(done: int, note: str = "") -> None:
        nonlocal said
        pace.took(done)
        now, rate = time.monotonic(), pace.per_second()
        if now - said >= SECONDS_BETWEEN_LOG_LINES and rate is not None:
            said = now
            left = f"about {duration((total - pace.count) / rate)} left"
            parts = (f"{pace.count} of {total} {unit}", left, pace.images_per_second(), note)
            screen.say(f"{title}: {', '.join(part for part in parts if part)}")

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

"""Time and peak memory of this process, also by activity.

This module imports only the standard library, since interpreters without this package's dependencies run it too.
"""

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

try:
    import resource
except ImportError:  # absent on Windows
    resource = None

# getrusage counts in kilobytes, except on macOS.
MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024


def process_peak_bytes() -> int | None:
    """Peak resident memory of this process so far, or None if the system does not report it."""
    return None if resource is None else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAXRSS_UNIT


@dataclass
class Timer:
    """Measures nested activities; time spent in an inner activity does not count for the outer one.

    `peak_bytes` is the peak memory of the process for the activities that raised it.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    peak_bytes: dict[str, int] = field(default_factory=dict)
    _highest: int = 0
    _inside: list[str] = field(default_factory=list)
    _since: float = 0.0

    @contextmanager
    def measures(self, activity: str) -> Iterator[None]:
        """Adds the time until the context ends to `activity`."""
        self._turn()
        self._inside.append(activity)
        try:
            yield
        finally:
            self._turn()
            self._inside.pop()

    def resume(self, seconds: Mapping[str, float]) -> None:
        """Adds the seconds by activity of earlier attempts."""
        for activity, spent in seconds.items():
            self.seconds[activity] = self.seconds.get(activity, 0.0) + spent

    def so_far(self) -> dict[str, float]:
        """Seconds by activity, with those of activities that have not ended."""
        self._turn()
        return dict(self.seconds)

    def _turn(self) -> None:
        now, peak = time.perf_counter(), process_peak_bytes() or 0
        if self._inside:
            activity = self._inside[-1]
            self.seconds[activity] = self.seconds.get(activity, 0.0) + now - self._since
            if peak > self._highest:
                self.peak_bytes[activity] = peak
        self._since, self._highest = now, peak

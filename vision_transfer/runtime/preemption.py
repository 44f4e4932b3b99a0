"""Being asked to stop: at once where nothing is lost by it, at the next checkpoint during training."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

# A process is to end within 10 s; an operation that goes on for longer than this, such as a compilation, is cut off.
GRACE_SECONDS = 8.0
# As shells report a process ended by a signal.
STATUS_BASE = 128


class Stopped(KeyboardInterrupt):
    """The process was asked to stop, and what it had done is saved.

    Attributes:
        signal_number: SIGTERM or SIGINT.
        status: with which the process is to end.
    """

    def __init__(self, signal_number: int, where: str = ""):
        super().__init__(where)
        self.signal_number = signal_number

    @property
    def status(self) -> int:
        """As shells report a process ended by this signal."""
        return STATUS_BASE + self.signal_number


@dataclass
class StopSignal:
    """Listens for SIGTERM and SIGINT.

    Outside of `deferred` a signal raises `Stopped` at once: every file is written whole or not at all, so nothing is
    lost. Inside it is only noted; a second one raises.

    Attributes:
        received: number of the noted signal, or None.
    """

    received: int | None = None
    _deferring: bool = False

    def install(self) -> None:
        """Takes over both signals for this process, and ends it where it does not end by itself in time."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)
        # Python's own handlers wait for the main thread to leave the library that it is in; this pipe does not.
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        threading.Thread(target=_end_when_late, args=(reading,), daemon=True).start()

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Notes signals instead of raising; the caller looks at `received` often.

        Raises:
            Stopped: at the end, if a signal was noted that the caller did not see any more.
        """
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False
        if self.received is not None:
            raise Stopped(self.received)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        if not self._deferring or self.received is not None:
            raise Stopped(number)
        self.received = number


def _end_when_late(signals: int) -> None:
    """Waits for a signal, gives the process its time, and then ends it as it stands.

    Args:
        signals: descriptor from which the number of each signal can be read, a byte each.
    """
    number = 0
    while number not in (signal.SIGTERM, signal.SIGINT):
        number = os.read(signals, 1)[0]
    time.sleep(GRACE_SECONDS)
    sys.stderr.write(
        f"launch.py: what was going on did not end within {GRACE_SECONDS:.0f} s after {signal.Signals(number).name} "
        "and was cut off. The same command goes on from the last checkpoint.\n"
    )
    sys.stderr.flush()
    os._exit(STATUS_BASE + number)

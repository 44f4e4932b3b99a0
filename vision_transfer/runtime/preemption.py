"""Signals to stop: obeyed at once where nothing is lost, and at the next checkpoint during training."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

# A process must end within 10 s, so an operation that takes longer, such as a compilation, is cut off after this.
GRACE_SECONDS = 8.0
# Shells add it to the number of the signal that ended a process.
STATUS_BASE = 128


class Stopped(KeyboardInterrupt):
    """The process was asked to stop by SIGTERM or SIGINT, its progress is saved, and it should end with `status`."""

    def __init__(self, signal_number: int, where: str = ""):
        super().__init__(where)
        self.signal_number = signal_number
        self.status = STATUS_BASE + signal_number


@dataclass
class StopSignal:
    """Listens for SIGTERM and SIGINT.

    Outside `deferred` a signal raises `Stopped` at once: every file is either complete or absent, so nothing is lost.
    Inside `deferred` the first signal is only recorded, as `received`, and a second one raises.
    """

    received: int | None = None
    _deferring: bool = False

    def install(self) -> None:
        """Handles both signals of this process, and ends the process if it does not end by itself in time."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)
        # Python's handlers run only when the main thread returns from native code; this pipe is written at once.
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        threading.Thread(target=_end_when_late, args=(reading,), daemon=True).start()

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Records signals instead of raising; the caller must check `received` often.

        Raises:
            Stopped: on exit, if a signal was recorded after the caller's last check.
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
    """Reads signal numbers, a byte each, from a descriptor; ends the process `GRACE_SECONDS` after one to stop."""
    number = 0
    while number not in (signal.SIGTERM, signal.SIGINT):
        number = os.read(signals, 1)[0]
    time.sleep(GRACE_SECONDS)
    sys.stderr.write(
        f"launch.py: cut off, because it did not end within {GRACE_SECONDS:.0f} s of {signal.Signals(number).name}. "
        "Run the same command again to resume from the last checkpoint.\n"
    )
    sys.stderr.flush()
    os._exit(STATUS_BASE + number)

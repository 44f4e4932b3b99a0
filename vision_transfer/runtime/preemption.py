"""Signals to stop: obeyed at the next safe point, during training after a checkpoint; in any case within 10 s.

A handler of a signal only takes a note. Python runs it wherever the main thread happens to be, in a callback of the
garbage collector, say, which swallows exceptions. The main thread raises `Stopped` where it calls `check`: at each step
of a progress bar and at each line on the screen. Where it gets to no such point in time, a thread ends the process:
every file is either complete or absent, so no moment is a bad one.
"""

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TextIO

from vision_transfer.runtime.program import program_name

# A process must end within 10 s, so a checkpoint that takes longer is cut off after this.
GRACE_SECONDS = 8.0
# Where there is nothing to save, such as in a compilation or in waiting for a lock.
IDLE_SECONDS = 2.0
# Time to write the last words in.
WRITING_SECONDS = 1.0
# Between two looks at the main thread.
SECONDS_BETWEEN_LOOKS = 0.1
# Shells add it to the number of the signal that ended a process.
STATUS_BASE = 128
SIGNALS = (signal.SIGTERM, signal.SIGINT)
ADVICE = "Run the same command again to resume"


class Stopped(KeyboardInterrupt):
    """The process was asked to stop by SIGTERM or SIGINT, its progress is saved, and it should end with `status`."""

    def __init__(self, signal_number: int, where: str = ""):
        super().__init__(where)
        self.signal_number = signal_number
        self.status = STATUS_BASE + signal_number


@dataclass
class StopSignal:
    """Listens for SIGTERM and SIGINT, of which the first is `received`; another one ends the process at once."""

    received: int | None = None
    _deferring: bool = False
    _raised: bool = False

    def install(self) -> None:
        """Handles both signals of this process, and ends the process if it does not end by itself in time."""
        for number in SIGNALS:
            signal.signal(number, self._note)
        # Python's handlers run only when the main thread returns from native code; this pipe is written at once.
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        threading.Thread(target=self._end_when_late, args=(reading,), daemon=True).start()

    def check(self) -> None:
        """A point where the process may stop.

        Raises:
            Stopped: a signal was received, once, unless the caller is inside `deferred`.
        """
        if self.received is not None and not self._deferring and not self._raised:
            self._raised = True
            raise Stopped(self.received)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """`check` does not raise inside; the caller must look at `received` often, save, and raise.

        Raises:
            Stopped: on exit, if a signal was recorded after the caller's last look.
        """
        self._deferring = True
        try:
            yield
        except Stopped:
            self._raised = True
            raise
        finally:
            self._deferring = False
        self.check()

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.received is None:
            self.received = number

    def _end_when_late(self, signals: int) -> None:
        """Reads signal numbers, a byte each, from a descriptor; ends the process some time after one to stop."""
        number = _next_signal(signals, None) or signal.SIGTERM
        asked = time.monotonic()
        while _next_signal(signals, SECONDS_BETWEEN_LOOKS) is None:
            late = time.monotonic() - asked
            if late > GRACE_SECONDS:
                name = signal.Signals(number).name
                _write_in_time(
                    sys.stderr,
                    f"{program_name()}: cut off, because it did not end within {GRACE_SECONDS:.0f} s of {name}. "
                    f"{ADVICE} from the last checkpoint.\n",
                )
                break
            if late > IDLE_SECONDS and not self._deferring and not self._raised:
                _write_in_time(sys.stdout, f"Stopped. {ADVICE}.\n")
                break
        else:
            _write_in_time(sys.stdout, "")
        # Last, and without a call that lets the main thread run: it would take the end of a child for a failure.
        for child in _children():
            with suppress(OSError):
                os.kill(child, signal.SIGTERM)
        os._exit(STATUS_BASE + number)


def leave(status: int) -> None:
    """Ends the process with its output written, and nothing else done.

    The end of the interpreter would wait for devices or, on a CPU, free what their threads still compute with: that
    ended in a segmentation fault. Locks are the system's, which frees them.
    """
    _write_last(sys.stdout, "")
    os._exit(status)


def _write_in_time(stream: TextIO, text: str) -> None:
    """Writes the last words of the process, unless whoever reads them has stopped reading: the main thread may be
    waiting for the same reader.
    """
    writer = threading.Thread(target=_write_last, args=(stream, text), daemon=True)
    writer.start()
    writer.join(WRITING_SECONDS)


def _write_last(stream: TextIO, text: str) -> None:
    with suppress(OSError, ValueError):  # a closed pipe
        stream.write(text)
    for each in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            if each is sys.stdout and each.isatty():
                each.write("\x1b[?25h")  # a progress bar hides the cursor
            each.flush()


def leave_when_asked() -> None:
    """Ends the process at once at either signal, until a `StopSignal` is installed: while modules are imported."""
    for number in SIGNALS:
        signal.signal(number, lambda number, frame: os._exit(STATUS_BASE + number))


def _next_signal(signals: int, timeout: float | None) -> int | None:
    """The number of the next signal to stop, or None after a timeout in seconds."""
    while select.select([signals], [], [], timeout)[0]:
        number = os.read(signals, 1)[0]
        if number in SIGNALS:
            return number
    return None


def _children() -> list[int]:
    """The processes that this one started, such as the runs of a benchmark; on Linux."""
    children: list[int] = []
    for file in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):
            children += map(int, file.read_text(encoding="ascii").split())
    return children

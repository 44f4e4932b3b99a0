"""Being asked to stop: at once where nothing is lost by it, at the next checkpoint during training."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


class Stopped(KeyboardInterrupt):
    """The process was asked to stop, and what it had done is saved.

    Attributes:
        signal_number: SIGTERM or SIGINT.
    """

    def __init__(self, signal_number: int, where: str = ""):
        super().__init__(where)
        self.signal_number = signal_number


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
        """Takes over both signals for this process."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Notes signals instead of raising; the caller looks at `received` often."""
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        if not self._deferring or self.received is not None:
            raise Stopped(number)
        self.received = number

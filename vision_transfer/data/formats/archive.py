"""Downloaded archives, checked before anything is extracted: none may write outside of its folder or fill the disk."""

import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from vision_transfer.errors import UserError

# Several times the largest public archive that is fetched (cats and dogs: 25,000 files, 0.9 GB unpacked).
MAX_MEMBERS = 200_000
MAX_UNPACKED_BYTES = 8 * 2**30
_UNIX_MODE_SHIFT = 16
# Raised by the standard library on damaged archives (seen when fuzzing).
_DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError)


@dataclass(frozen=True)
class Archive:
    """An open archive whose members all have harmless names and sizes; `members` has the size of each file in bytes."""

    path: Path
    opened: zipfile.ZipFile | tarfile.TarFile
    members: dict[str, int]

    def read(self, name: str) -> bytes:
        """The content of a member; raises UserError if it is damaged."""
        try:
            if isinstance(self.opened, zipfile.ZipFile):
                return self.opened.read(name)
            content = self.opened.extractfile(name)
            return b"" if content is None else content.read()
        except _DAMAGE as error:
            raise UserError(
                f"{self.path}: its member {name} is damaged ({error}). Download the archive again."
            ) from None


@contextmanager
def opened_archive(path: Path) -> Iterator[Archive]:
    """Opens a zip or tar archive (compressed or not).

    Raises:
        UserError: not an archive, damaged, above the limits, or with a member that leads outside of its folder or is a
            link or device.
    """
    with _opened(path) as opened:
        try:
            members = _zip_members(path, opened) if isinstance(opened, zipfile.ZipFile) else _tar_members(path, opened)
        except _DAMAGE as error:
            raise UserError(f"{path}: damaged archive ({error}). Download it again.") from None
        yield Archive(path, opened, members)


def _opened(path: Path) -> zipfile.ZipFile | tarfile.TarFile:
    try:
        return zipfile.ZipFile(path) if zipfile.is_zipfile(path) else tarfile.open(path)
    except _DAMAGE as error:
        raise UserError(f"{path}: damaged, or not a zip or tar archive ({error}). Download it again.") from None


def _zip_members(path: Path, archive: zipfile.ZipFile) -> dict[str, int]:
    members = archive.infolist()
    _check_size(path, len(members), sum(member.file_size for member in members))
    for member in members:
        _check_name(path, member.filename)
        if stat.S_ISLNK(member.external_attr >> _UNIX_MODE_SHIFT):
            raise UserError(f"{path}: its member {member.filename} is a link; nothing was extracted.")
    return {member.filename: member.file_size for member in members if not member.is_dir()}


def _tar_members(path: Path, archive: tarfile.TarFile) -> dict[str, int]:
    members, unpacked = {}, 0
    # One by one, so that an archive that unpacks without end is abandoned at the limit.
    for count, member in enumerate(archive, start=1):
        unpacked += member.size
        _check_size(path, count, unpacked)
        _check_name(path, member.name)
        if not (member.isreg() or member.isdir()):
            raise UserError(f"{path}: its member {member.name} is a link or device; nothing was extracted.")
        if member.isreg():
            members[member.name] = member.size
    return members


def _check_size(path: Path, members: int, unpacked: int) -> None:
    if members > MAX_MEMBERS or unpacked > MAX_UNPACKED_BYTES:
        raise UserError(
            f"{path}: declares {members:,} members of {unpacked:,} bytes in total; the limits are {MAX_MEMBERS:,} and "
            f"{MAX_UNPACKED_BYTES:,}. Nothing was extracted."
        )


def _check_name(path: Path, name: str) -> None:
    """Rejects a name that leads outside of the folder it is extracted to, on any operating system."""
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    if posix.is_absolute() or windows.drive or windows.root or ".." in windows.parts:
        raise UserError(f"{path}: its member {name} leads outside of the archive's folder; nothing was extracted.")

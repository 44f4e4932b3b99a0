"""Files and folders that are either complete or absent, even after a power cut; locks of folders."""

import errno
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from vision_transfer.errors import UserError
from vision_transfer.runtime.console import Screen

# Part of every temporary name, so that the leftovers of killed processes can be found and removed.
TEMPORARY_MARK = ".writing-"
# A file of ours that is gone, or that something else has replaced, is damage and can be made again. Every other error
# is the system's (no descriptors, memory or permission left, a failing disk): the file may be whole, and must stay.
DAMAGE = (FileNotFoundError, IsADirectoryError, NotADirectoryError)
# What a user can fix on a machine: a disk that is full, over quota, read-only, forbidden or failing; a lack of
# descriptors or memory.
SYSTEM_ERRORS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.EIO),
    *(errno.EMFILE, errno.ENFILE, errno.ENOMEM),
)
SECONDS_BEFORE_SAYING_THAT_IT_WAITS = 1.0
TRIES_TO_REMOVE, SECONDS_BETWEEN_TRIES = 20, 0.05


@contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
    """A temporary path for the caller to write; on success synced and renamed to `path`, on failure removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_sibling(path)
    try:
        yield temporary
        name_synced(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def name_synced(temporary: Path, path: Path) -> None:
    """Renames a finished file or folder once its content is safely on disk."""
    _sync(temporary)
    temporary.replace(path)
    _sync(path.parent)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder for the caller to fill; on success synced and renamed to `path`, on failure removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_sibling(path)
    temporary.mkdir()
    try:
        yield temporary
        for inside in sorted(temporary.rglob("*"), reverse=True):
            _sync(inside)
        name_synced(temporary, path)
    finally:
        _remove_folder(temporary)


def _remove_folder(folder: Path) -> None:
    """Removes a folder although threads may still write into it, as Orbax's do for a moment after a full disk."""
    for _ in range(TRIES_TO_REMOVE):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(SECONDS_BETWEEN_TRIES)


def user_path(text: str | Path) -> Path:
    """A path that a user gave, with `~` as the home folder; as it stands where there is no such user."""
    return Path(os.path.expanduser(text))  # noqa: PTH111 (Path.expanduser raises an error there)


def absolute_path(text: str) -> str:
    """A path that a user gave, as it is to be recorded: valid from any current folder."""
    return str(user_path(text).absolute())


def lies_in(path: Path, folder: Path) -> bool:
    """Whether a path is below a folder once all links and `..` in both are resolved."""
    return folder.resolve() in path.resolve().parents


def temporary_sibling(path: Path) -> Path:
    """An unused name in the same folder."""
    return path.with_name(f"{path.name}{TEMPORARY_MARK}{uuid.uuid4().hex[:12]}")


def remove_leftovers(folder: Path) -> None:
    """Removes what killed processes were writing directly in `folder`; the caller must hold the folder's lock."""
    for leftover in folder.glob(f"*{TEMPORARY_MARK}*"):
        remove(leftover)


def write_text(path: Path, text: str) -> None:
    """Writes a text in UTF-8; what has no code there, such as bytes of a foreign file name, as escapes."""
    with replaced_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, value: Any) -> None:
    """Writes indented JSON with sorted keys."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """The text that `write_json` writes."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def read_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not JSON in UTF-8, or nested too deep to be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError(f"{path.name} is nested too deep") from None


def raise_if_of_the_system(error: BaseException) -> None:
    """Raises an error again that says nothing about the file that was read, so that nobody takes it for damage."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in SYSTEM_ERRORS):
        raise error


def remove(path: Path) -> None:
    """Removes a file, or a folder and all that is in it; a link itself; nothing if it is not there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def file_sha256(path: Path) -> str:
    """Hexadecimal digest of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def held(lock: FileLock) -> Iterator[bool]:
    """Tries to take the lock without waiting; yields whether this process holds it until the context ends."""
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


@contextmanager
def waited_for(lock: FileLock, doing: str, screen: Screen) -> Iterator[None]:
    """Holds the lock. If another process has it, tells the user what that process is `doing`, and waits."""
    try:
        holding = lock.acquire(timeout=SECONDS_BEFORE_SAYING_THAT_IT_WAITS)
    except Timeout:
        screen.say(f"Another process is {doing}; waiting for it.")
        holding = lock.acquire()
    with holding:
        yield


@contextmanager
def shared_folder(folder: Path, doing: str, screen: Screen) -> Iterator[None]:
    """Creates a folder of the cache, holds its lock `FOLDER.lock`, and removes what killed processes left in it.

    Where another process is `doing` something with it, waits for that process; see `waited_for`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with waited_for(FileLock(folder.with_suffix(".lock")), doing, screen):
        folder.mkdir(exist_ok=True)  # it may have been pruned meanwhile
        remove_leftovers(folder)
        yield


@contextmanager
def claimed_folder(folder: Path, busy: UserError) -> Iterator[None]:
    """Creates the folder of a command, holds the lock `.lock` in it, and removes what killed processes left in it.

    Raises:
        UserError: `busy` if another process has the lock; or the folder cannot be created or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        holding = FileLock(folder / ".lock").acquire(timeout=0)
    except Timeout:
        raise busy from None
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be created or written to ({error.strerror or error}); set --workdir to another folder"
        ) from error
    with holding:
        remove_leftovers(folder)
        yield


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

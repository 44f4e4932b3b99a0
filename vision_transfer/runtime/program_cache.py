"""The cache of compiled programs on disk: JAX's, with a digest behind each program.

JAX compresses programs by zlib or, where it is installed (always from Python 3.14 on), zstandard, which does not notice
a flipped bit; the damaged program then ended the process with SIGSEGV or SIGILL, every time until it was removed.
"""

import hashlib
from contextlib import suppress
from pathlib import Path

from jax._src import compilation_cache
from jax._src.compilation_cache_interface import CacheInterface

# The names that JAX gives its files.
SUFFIX = "-cache"
MARK = b"sha256:"
TRAILER_BYTES = len(MARK) + hashlib.sha256().digest_size


class ProgramCache(CacheInterface):
    """A folder with a file for each program: its bytes, a mark, and the sha256 of the bytes."""

    def __init__(self, folder: Path) -> None:
        self._path = folder
        folder.mkdir(parents=True, exist_ok=True)

    def get(self, key: str) -> bytes | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The program of this key; None if there is none, and if it is damaged, half-written or has no digest."""
        try:
            content = self._file(key).read_bytes()
        except FileNotFoundError:
            return None
        program, trailer = content[:-TRAILER_BYTES], content[-TRAILER_BYTES:]
        return program if trailer == _trailer(program) else None

    def put(self, key: str, value: bytes) -> None:
        """Writes a program, if the disk has room. No other name is needed meanwhile: half of it has no digest."""
        try:
            self._file(key).write_bytes(value + _trailer(value))
        except OSError:  # what computes needs no cache
            with suppress(OSError):
                self._file(key).unlink(missing_ok=True)

    def _file(self, key: str) -> Path:
        return self._path / f"{key}{SUFFIX}"


def use_digests() -> None:
    """Makes JAX keep its compiled programs in a `ProgramCache`; a later version without this function keeps its own."""
    if hasattr(compilation_cache, "get_file_cache"):
        compilation_cache.get_file_cache = lambda path: (ProgramCache(Path(path)), path)


def _trailer(program: bytes) -> bytes:
    return MARK + hashlib.sha256(program).digest()

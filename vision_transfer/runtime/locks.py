"""Locks that are had at once or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout


@contextmanager
def held(lock: FileLock) -> Iterator[bool]:
    """Whether nobody else holds the lock; if so, this process does until the end."""
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()

"""The cache of published weights: one safetensors file each, with the digest over its tensors in the header."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from rich.markup import escape

from vision_transfer.errors import UserError
from vision_transfer.models.pretrained.releases import Release
from vision_transfer.models.pretrained.safetensors_file import write_safetensors
from vision_transfer.models.pretrained.tensors import Params, tensors_sha256
from vision_transfer.runtime.console import Screen

FOLDER = "weights"
# Keys of texts in the header.
DIGEST_KEY, RELEASE_KEY, SOURCE_KEY = "tensors_sha256", "release", "source"


def cache_path(cache_dir: Path, release: Release) -> Path:
    """The file of a release: `weights/vgg16_notop.safetensors`."""
    return cache_dir / FOLDER / f"{release.name}.safetensors"


def write_cached(path: Path, params: Params, release: Release, source: str) -> None:
    """Writes verified weights atomically."""
    write_safetensors(path, params, {DIGEST_KEY: tensors_sha256(params), RELEASE_KEY: release.name, SOURCE_KEY: source})


def cached_source(path: Path, metadata: dict[str, str], release: Release, digest: str) -> str | None:
    """The source that the weights in a file of the cache, or in a copy of one, were fetched from.

    Args:
        path: the file, for the message.
        metadata: texts in its header.
        release: the expected content.
        digest: `tensors_sha256` of the tensors that were read from it.

    Returns:
        None if the header does not name this release.

    Raises:
        UserError: the header names it, but the tensors differ from those that were written or published.
    """
    if metadata.get(RELEASE_KEY) != release.name:
        return None
    expected = release.tensors_sha256 or metadata.get(DIGEST_KEY)
    if digest != expected:
        raise UserError(
            f"weights file {path}: the digest over its tensors is sha256 {digest}, expected {expected}; it was changed "
            "after it was written"
        )
    return metadata.get(SOURCE_KEY, "an unknown source")


@contextmanager
def locked(folder: Path, screen: Screen) -> Iterator[None]:
    """Creates the folder and holds its lock; tells the user while it waits for another process."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        screen.say(escape(f"another process is fetching weights into {folder}; waiting for it"))
        lock.acquire()
    try:
        yield
    finally:
        lock.release()

"""The entries of the cache: weights, data sets and what is known of them, images, features, compiled programs.

Only files that this program writes are listed, and hence deleted: each kind recognises its own by their names.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vision_transfer.data.dataset import DIGEST_BYTES
from vision_transfer.data.download import DOWNLOADS_FOLDER, PUBLIC_FILES
from vision_transfer.data.find import FETCHED_FOLDER
from vision_transfer.data.formats.tfds import INDEX_FOLDER
from vision_transfer.data.images.cache import FOLDER as DECODED_FOLDER
from vision_transfer.data.images.near_duplicates import ROW_BYTES, THUMBNAILS_FOLDER
from vision_transfer.feature_cache.prefix import computed_by
from vision_transfer.feature_cache.store import FOLDER as FEATURES_FOLDER
from vision_transfer.feature_cache.store import Store
from vision_transfer.models.backbones.registry import RELEASES
from vision_transfer.models.pretrained.load import FOLDER as WEIGHTS_FOLDER
from vision_transfer.runtime.files import read_json
from vision_transfer.runtime.jax_setup import COMPILED_FOLDER

# Names that `provenance.json_digest` and the decoded cache give to folders, and JAX to files.
_FEATURES_KEY = re.compile(r"[0-9a-f]{16}")
_DECODED_KEY = re.compile(r"[0-9a-f]{32}")
_DIGEST_FILE = re.compile(rf"[0-9a-f]{{{2 * DIGEST_BYTES}}}")
_DECODED_FILES = ("manifest.json", "images.npy", "labels.npy", "digests.npy")
_COMPILED_FILE = re.compile(r"(?P<program>.+)-[0-9a-f]{64}-(cache|atime)")


@dataclass(frozen=True)
class Entry:
    """A part of the cache that can be deleted by itself, last used `used` seconds after 1970.

    It is `stale` if no run will use it again, since other code or another JAX computed it; only known for features.
    """

    kind: str
    name: str
    about: str
    files: tuple[Path, ...]
    bytes: int
    used: float
    stale: bool = False

    @property
    def path(self) -> str:
        """Its name in `--prune`: `features/1c5bf96c570878d4`."""
        return f"{self.kind}/{self.name}"


def cache_entries(cache: Path) -> list[Entry]:
    """All entries, by kind and name."""
    return [entry for kind, find in KINDS.items() for entry in find(cache / kind)]


def _weights(folder: Path) -> Iterator[Entry]:
    for release in RELEASES:
        files = _existing(folder / f"{release.name}.safetensors")
        if files:
            yield _entry(WEIGHTS_FOLDER, release.name, f"published weights of {release.architecture}", files)


def _data_sets(folder: Path) -> Iterator[Entry]:
    for name in sorted(PUBLIC_FILES):
        if (folder / name).is_dir():
            files = _files_below(folder / name)
            yield _entry(FETCHED_FOLDER, name, f"a public data set, {len(files):,} files", files)


def _downloads(folder: Path) -> Iterator[Entry]:
    for name, public in sorted(PUBLIC_FILES.items()):
        endings = ("", ".part")
        files = _existing(*(folder / name / f"{file.name}{ending}" for file in public for ending in endings))
        if files:
            yield _entry(DOWNLOADS_FOLDER, name, "an unfinished download", files)


def _decoded(folder: Path) -> Iterator[Entry]:
    for place in _folders(folder, _DECODED_KEY):
        files = [file for file in _files_below(place) if file.name in _DECODED_FILES]
        if files:
            yield _entry(DECODED_FOLDER, place.name, _about_decoded(place / "data" / "manifest.json"), files)


def _about_decoded(manifest: Path) -> str:
    try:
        splits = read_json(manifest)["content"]["splits"]
        shapes = [split["shape"] for split in splits.values()]
        return f"{sum(shape[0] for shape in shapes):,} images of {'×'.join(map(str, shapes[0][1:]))}"
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
        return "unfinished"


def _thumbnails(folder: Path) -> Iterator[Entry]:
    for file in _existing(*sorted(folder.glob("*"))):
        if _DIGEST_FILE.fullmatch(file.name):
            about = f"{(file.stat().st_size - DIGEST_BYTES) // ROW_BYTES:,} images, for finding near-duplicates"
            yield _entry(THUMBNAILS_FOLDER, file.name, about, [file])


def _tfds_indices(folder: Path) -> Iterator[Entry]:
    for file in _existing(*sorted(folder.glob("*"))):
        if _DIGEST_FILE.fullmatch(file.name):
            yield _entry(INDEX_FOLDER, file.name, "labels and digest of a split of a TensorFlow Dataset", [file])


def _features(folder: Path) -> Iterator[Entry]:
    now: dict[bool, Mapping[str, object]] = {}
    for place in _folders(folder, _FEATURES_KEY):
        store = Store(place)
        files = [*store.files, *_existing(store.used_file)]
        if not files:
            continue
        about = store.description()
        key = about.get("key")
        key = key if isinstance(key, Mapping) else {}
        augmented = key.get("variant") is not None
        if augmented not in now:
            now[augmented] = computed_by(augmented=augmented)
        stale = any(key.get(name) != value for name, value in now[augmented].items())
        used = (store.used_file if store.used_file in files else place).stat().st_mtime
        text = _about_features(about, key, len(store.keys()))
        yield Entry(FEATURES_FOLDER, place.name, text, tuple(files), _size(files), used, stale)


def _about_features(about: Mapping[str, Any], key: Mapping[str, Any], rows: int) -> str:
    """Layer, network, image size, dtype and number of rows."""
    try:
        size = "×".join(map(str, key["input_shape"]))
        variant = "" if key["variant"] is None else f", variant {key['variant'][1]}"
        return f"{about['layer']} of {about['backbone']}, {size}, {key['stored']}{variant}: {rows:,} rows"
    except (KeyError, TypeError, IndexError):
        return f"from another version of this program: {rows:,} rows"


def _compiled(folder: Path) -> Iterator[Entry]:
    for file in _existing(*sorted(folder.glob("*-cache"))):
        named = _COMPILED_FILE.fullmatch(file.name)
        if named:
            name = file.name.removesuffix("-cache")
            yield _entry(COMPILED_FOLDER, name, named["program"], [file, *_existing(folder / f"{name}-atime")])


# Lists the entries of each kind in its folder.
KINDS: dict[str, Callable[[Path], Iterator[Entry]]] = {
    WEIGHTS_FOLDER: _weights,
    FETCHED_FOLDER: _data_sets,
    DOWNLOADS_FOLDER: _downloads,
    DECODED_FOLDER: _decoded,
    THUMBNAILS_FOLDER: _thumbnails,
    INDEX_FOLDER: _tfds_indices,
    FEATURES_FOLDER: _features,
    COMPILED_FOLDER: _compiled,
}


def _entry(kind: str, name: str, about: str, files: list[Path]) -> Entry:
    """An entry whose last use is when any of its files was read or written, as far as the disk records it."""
    times = [max(file.stat().st_atime, file.stat().st_mtime) for file in files]
    return Entry(kind, name, about, tuple(files), _size(files), max(times, default=0.0))


def _existing(*files: Path) -> list[Path]:
    return [file for file in files if file.is_file()]


def _folders(folder: Path, key: re.Pattern[str]) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(place for place in folder.iterdir() if key.fullmatch(place.name) and place.is_dir())


def _files_below(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file() and not file.is_symlink())


def _size(files: list[Path]) -> int:
    return sum(file.stat().st_size for file in files)

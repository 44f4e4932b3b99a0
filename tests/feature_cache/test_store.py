"""The store on disk: dtypes, verification, and who holds it."""

import errno
import gc
import os
import subprocess
import sys
import threading
import time

import jax.numpy as jnp
import numpy as np
import pytest
from filelock import FileLock

from vision_transfer.feature_cache import store as store_module
from vision_transfer.feature_cache.store import Hold, Store, open_store, write_shard
from vision_transfer.runtime import files
from vision_transfer.runtime.files import shared_folder

KEYS = np.arange(64, dtype=np.uint8).reshape(4, 16)


@pytest.fixture
def store(tmp_path):
    place = Store(tmp_path / "features" / "0123456789abcdef")
    place.path.mkdir(parents=True)
    return place


def filled(store, dtype="float32"):
    """Two shards of two rows."""
    values = np.random.default_rng(0).normal(size=(4, 2, 3)).astype(jnp.dtype(dtype))
    write_shard(store, values[:2], KEYS[:2])
    write_shard(store, values[2:], KEYS[2:])
    return values


@pytest.fixture
def hashed(monkeypatch):
    """The files that are read to be verified, and a memory of none."""
    files = []
    compute = store_module.file_sha256

    def spy(file):
        files.append(file.name)
        return compute(file)

    monkeypatch.setattr(store_module, "file_sha256", spy)
    store_module._sha256_of.cache_clear()
    return files


def flip(file):
    """Changes the last byte, as a failing disk would: neither size nor time tell."""
    time = file.stat().st_mtime_ns
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(time, time))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rows_come_back_as_they_were_in_any_order(store, screen, dtype):
    values = filled(store, dtype)
    order = [3, 0, 2]
    rows = open_store(store, screen, remove_damaged=False).rows(KEYS[order])
    assert (rows.shape, rows.dtype) == ((3, 2, 3), values.dtype)
    np.testing.assert_array_equal(rows[np.arange(3)], values[order])
    np.testing.assert_array_equal(np.unique(store.keys(), axis=0), KEYS)


def test_bfloat16_takes_half_the_bytes_and_no_pickle(store):
    write_shard(store, np.zeros((2, 4096), np.float32), KEYS[:2])
    write_shard(store, np.zeros((2, 4096), jnp.bfloat16), KEYS[2:])
    small, large = sorted(store.path.glob("*.npy"), key=lambda file: file.stat().st_size)
    assert large.stat().st_size - 128 == 2 * (small.stat().st_size - 128)
    assert np.load(small, allow_pickle=False).dtype == np.uint16


def test_a_shard_is_verified_once_in_a_process(store, screen, hashed):
    filled(store)
    for _ in range(3):
        open_store(store, screen, remove_damaged=True)
    assert sorted(hashed) == sorted(file.name for file in store.path.glob("*.npy"))


def test_headers_are_read_by_the_calling_thread_alone(store, screen, monkeypatch):
    """`ast`, with which numpy reads them, fails at random in CPython 3.11 when two threads use it at once."""
    filled(store)
    threads = []
    open_file = store_module.open_rows

    def spy(file):
        threads.append(threading.current_thread())
        return open_file(file)

    monkeypatch.setattr(store_module, "open_rows", spy)
    open_store(store, screen, remove_damaged=False)
    assert threads == [threading.current_thread()] * 2


def test_a_flipped_byte_is_noticed_by_the_next_process(store, screen):
    filled(store)
    damaged = store.index_files[0]
    flip(damaged.with_suffix(".npy"))
    store_module._sha256_of.cache_clear()  # as a new process
    found = open_store(store, screen, remove_damaged=True)
    assert len(found.shards) == 1
    assert len(found.keys) == 2
    assert not damaged.exists()


def test_a_changed_file_is_verified_again_in_the_same_process(store, screen, hashed):
    filled(store)
    open_store(store, screen, remove_damaged=True)
    array = store.index_files[1].with_suffix(".npy")
    before = len(hashed)
    os.utime(array, ns=(1, 1))
    assert len(open_store(store, screen, remove_damaged=True).shards) == 2
    assert hashed[before:] == [array.name]


def test_damage_stays_where_the_store_is_not_locked(store, screen):
    filled(store)
    store.index_files[0].write_text("{")
    assert len(open_store(store, screen, remove_damaged=False).shards) == 1
    assert len(store.index_files) == 2


def test_a_store_is_in_use_while_its_rows_are(store, screen):
    filled(store)
    rows = open_store(store, screen, remove_damaged=False).rows(KEYS)
    with store.unused() as unused:
        assert not unused
    del rows
    gc.collect()
    with store.unused() as unused:
        assert unused


def test_a_store_is_in_use_while_it_grows(store, screen):
    with shared_folder(store.path, "computing features", screen), store.unused() as unused:
        assert not unused


def test_a_use_is_noted(store):
    store.used_file.touch()
    os.utime(store.used_file, (1, 1))
    Hold(store.used_file)
    assert store.used_file.stat().st_mtime > 1


def test_who_waits_for_another_process_is_told(store, screen, monkeypatch):
    monkeypatch.setattr(files, "SECONDS_BEFORE_SAYING_THAT_IT_WAITS", 0.05)
    held = threading.Event()

    def compute():
        with FileLock(store.lock_file):
            held.set()
            time.sleep(0.3)

    other = threading.Thread(target=compute)
    other.start()
    held.wait()
    with shared_folder(store.path, "computing features of pool1", screen):
        assert "features of pool1; waiting" in screen.console.file.getvalue()
    other.join()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.EACCES])
def test_an_error_of_the_system_is_no_damage(store, screen, monkeypatch, number):
    filled(store)
    before = sorted(store.path.iterdir())

    def refused(file):
        raise OSError(number, os.strerror(number), str(file))

    for name in ("read_json", "_sha256", "open_rows"):
        with monkeypatch.context() as patched:
            patched.setattr(store_module, name, refused)
            with pytest.raises(OSError, match=os.strerror(number)):
                open_store(store, screen, remove_damaged=True)
        assert sorted(store.path.iterdir()) == before
    assert len(open_store(store, screen, remove_damaged=True).keys) == len(KEYS)


@pytest.mark.parametrize("suffix", [".json", ".npy"])
def test_a_folder_in_place_of_a_file_is_damage(store, screen, suffix):
    filled(store)
    file = store.index_files[0].with_suffix(suffix)
    file.unlink()
    (file / "inside").mkdir(parents=True)
    assert len(open_store(store, screen, remove_damaged=True).shards) == 1
    assert not file.exists()


def test_an_index_nested_deep_is_damage(store, screen):
    filled(store)
    store.index_files[0].write_text("[" * 200_000)
    assert len(store.keys()) == 2
    assert len(open_store(store, screen, remove_damaged=True).shards) == 1


def test_more_shards_than_descriptors(tmp_path):
    """In a process of its own, whose limit it may lower."""
    script = """
import io, resource, sys
import numpy as np
from pathlib import Path
from rich.console import Console
from vision_transfer.feature_cache.store import Store, open_store, write_shard
from vision_transfer.runtime.console import Screen

store = Store(Path(sys.argv[1]))
for number in range(120):
    write_shard(store, np.full((1, 3), number, np.float32), np.full((1, 16), number, np.uint8))
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
found = open_store(store, Screen(Console(file=io.StringIO())), remove_damaged=True)
rows = found.rows(np.repeat(np.arange(120, dtype=np.uint8), 16).reshape(-1, 16))
assert rows[np.arange(120)][:, 0].tolist() == list(range(120))
assert len(store.index_files) == 120
"""
    (tmp_path / "features").mkdir()
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "features")], check=True)

"""Memory that compilation frees is returned to the system."""

import ctypes
import mmap
from pathlib import Path

import jax.monitoring
import numpy as np
import pytest

from vision_transfer.runtime import memory
from vision_transfer.runtime.compilation import COMPILED_EVENT

# Blocks small enough that the C library keeps them when they are freed.
BLOCK_BYTES, BLOCKS = 100_000, 2_000


def resident_bytes():
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * mmap.PAGESIZE


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library is not glibc")
def test_freed_memory_is_returned():
    blocks = [np.ones(BLOCK_BYTES, np.uint8) for _ in range(BLOCKS)]
    last = np.ones(BLOCK_BYTES, np.uint8)  # above the blocks, so that they are not at the end of the heap
    blocks.clear()
    before = resident_bytes()
    memory.return_freed_memory()
    assert before - resident_bytes() > BLOCK_BYTES * BLOCKS / 2
    assert last.all()


def test_only_long_compilations_return_memory(monkeypatch):
    calls = []
    monkeypatch.setattr(memory, "return_freed_memory", lambda: calls.append(1))
    memory.return_memory_after_compiling()
    try:
        for event, seconds in ((COMPILED_EVENT, 2.0), (COMPILED_EVENT, 0.01), ("/another/event", 9.0)):
            jax.monitoring.record_event_duration_secs(event, seconds)
    finally:
        jax.monitoring.unregister_event_duration_listener(memory._on_duration)
    assert calls == [1]

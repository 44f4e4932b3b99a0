"""The report of compiled programs, and the return of the memory that compilation frees."""

import ctypes
import mmap
import subprocess
import sys
from pathlib import Path

import jax.monitoring
import numpy as np
import pytest

from vision_transfer.runtime import compilation
from vision_transfer.runtime.compilation import COMPILED_EVENT, MISS_EVENT, report_compilations

# Blocks small enough that the C library keeps them when they are freed.
BLOCK_BYTES, BLOCKS = 100_000, 2_000
SCRIPT = """
import io, sys
from pathlib import Path
import jax, jax.numpy as jnp
from rich.console import Console
from vision_transfer.runtime import jax_setup
from vision_transfer.runtime.compilation import report_compilations
from vision_transfer.runtime.console import Screen

jax_setup.configure(Path(sys.argv[1]))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
values = jnp.ones(3).block_until_ready()
for _ in range(2):
    jax.clear_caches()
    screen = Screen(Console(file=io.StringIO()))
    with report_compilations(screen, noticeable=0.0):
        jax.jit(lambda values: jnp.sin(values) * 2)(values).block_until_ready()
    print(repr(screen.console.file.getvalue()))
"""


def record(seconds, name="run_steps", *, missed=True):
    """Emits the events of a compilation as JAX does."""
    if missed:
        jax.monitoring.record_event(MISS_EVENT)
    jax.monitoring.record_event_duration_secs(COMPILED_EVENT, seconds, fun_name=f"jit({name})")


@pytest.fixture
def printed(screen):
    def lines():
        return screen.console.file.getvalue().splitlines()

    return lines


def test_jax_still_emits_the_events(tmp_path):
    done = subprocess.run([sys.executable, "-c", SCRIPT, tmp_path], capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert first.startswith("'Compiled ") and first.endswith("; cached for next time.\\n'")
    assert second == "''"


def test_each_program_is_reported_once_unless_quick_or_cached(screen, printed):
    with report_compilations(screen, noticeable=2.0):
        record(9.0)
        record(9.0)
        record(1.0, "_infer")
        record(5.0, "other", missed=False)
        record(3.0, "_infer")
    assert printed() == [
        "Compiled the training step in 9.0 s; cached for next time.",
        "Compiled the forward pass in 3.0 s; cached for next time.",
    ]


def test_nothing_listens_afterwards(screen, printed):
    with pytest.raises(KeyError), report_compilations(screen):
        raise KeyError
    record(9.0)
    assert printed() == []


def resident_bytes():
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * mmap.PAGESIZE


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library is not glibc")
def test_freed_memory_is_returned():
    blocks = [np.ones(BLOCK_BYTES, np.uint8) for _ in range(BLOCKS)]
    last = np.ones(BLOCK_BYTES, np.uint8)  # above the blocks, so that they are not at the end of the heap
    blocks.clear()
    before = resident_bytes()
    compilation.return_freed_memory()
    assert before - resident_bytes() > BLOCK_BYTES * BLOCKS / 2
    assert last.all()


def test_only_long_compilations_return_memory(monkeypatch):
    calls = []
    monkeypatch.setattr(compilation, "return_freed_memory", lambda: calls.append(1))
    compilation.return_memory_after_compiling()
    try:
        for event, seconds in ((COMPILED_EVENT, 2.0), (COMPILED_EVENT, 0.01), ("/another/event", 9.0)):
            jax.monitoring.record_event_duration_secs(event, seconds)
    finally:
        jax.monitoring.unregister_event_duration_listener(compilation._on_duration)
    assert calls == [1]

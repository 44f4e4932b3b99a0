"""How JAX is set up before it first computes: devices on a CPU, and the cache of compiled programs."""

import os
from pathlib import Path

import jax

COMPILED_FOLDER = "compiled"
# Programs that compile faster than this are not worth a file.
SHORTEST_COMPILATION_KEPT_SECONDS = 0.2


# XLA then takes no operation that adds in an order of its own, and chooses none by timing.
DETERMINISTIC_FLAG = "--xla_gpu_deterministic_ops=true"


def configure(cache: Path, *, deterministic: bool = False) -> None:
    """Turns JAX's persistent compilation cache on; must run before JAX computes anything.

    Args:
        cache: root of all caches.
        deterministic: only operations of a GPU that give the same bits every time (`config.deterministic`).
    """
    if deterministic:
        os.environ["XLA_FLAGS"] = " ".join([*os.environ.get("XLA_FLAGS", "").split(), DETERMINISTIC_FLAG])
    jax.config.update("jax_compilation_cache_dir", str(cache / COMPILED_FOLDER))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", SHORTEST_COMPILATION_KEPT_SECONDS)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)

"""A line when a program was not among the compiled ones that JAX keeps, so that the time it took has a name."""

from collections.abc import Iterator
from contextlib import contextmanager

import jax.monitoring

from vision_transfer.runtime.console import Screen, duration

# Programs that compile faster than this go by unnoticed.
NOTICEABLE_SECONDS = 2.0
# Names of jitted functions, as JAX reports them, for the reader.
PROGRAMS = {
    "run_steps": "the training step",
    "_infer": "the forward pass",
    "_variant": "augmentation",
    "_heat": "heat maps",
}
# What JAX 0.10 calls them: `jax/_src/compilation_cache.py` and `jax/_src/dispatch.py`.
MISS_EVENT = "/jax/compilation_cache/cache_misses"
COMPILED_EVENT = "/jax/core/compile/backend_compile_duration"


@contextmanager
def compilations_said(screen: Screen, noticeable: float = NOTICEABLE_SECONDS) -> Iterator[None]:
    """Says of each program, once, that it was compiled and is kept for the next time.

    JAX calls its listeners for the whole process; these end with the context.

    Args:
        screen: to say it on.
        noticeable: shortest compilation, in seconds, that is worth a line.
    """
    missed: list[str] = []
    said: set[str] = set()

    def on_event(event: str, **_: str | int) -> None:
        if event == MISS_EVENT:
            missed.append(event)

    def on_duration(event: str, duration_secs: float, **about: str | int) -> None:
        if event != COMPILED_EVENT:
            return
        kept = bool(missed)
        missed.clear()
        name = str(about.get("fun_name", "")).removeprefix("jit_").removeprefix("jit(").removesuffix(")")
        if kept and duration_secs >= noticeable and name not in said:
            said.add(name)
            took = duration(duration_secs)
            screen.say(f"Compiled {PROGRAMS.get(name, name)} in {took}; kept for next time.", style="dim")

    jax.monitoring.register_event_listener(on_event)
    jax.monitoring.register_event_duration_secs_listener(on_duration)
    try:
        yield
    finally:
        jax.monitoring.unregister_event_listener(on_event)
        jax.monitoring.unregister_event_duration_listener(on_duration)

"""Reports programs that JAX had to compile, so that the user knows what the time was spent on."""

from collections.abc import Iterator
from contextlib import contextmanager

import jax.monitoring

from vision_transfer.runtime.console import Screen, duration

# Faster compilations are not reported.
NOTICEABLE_SECONDS = 2.0
# Readable names of jitted functions.
PROGRAMS = {
    "run_steps": "the training step",
    "_infer": "the forward pass",
    "_variant": "augmentation",
    "_heat": "heat maps",
}
# Event names in JAX 0.10: `jax/_src/compilation_cache.py` and `jax/_src/dispatch.py`.
MISS_EVENT = "/jax/compilation_cache/cache_misses"
COMPILED_EVENT = "/jax/core/compile/backend_compile_duration"


@contextmanager
def report_compilations(screen: Screen, noticeable: float = NOTICEABLE_SECONDS) -> Iterator[None]:
    """Prints a line once per program that takes `noticeable` seconds or more to compile and is then cached."""
    missed = False
    reported: set[str] = set()

    def on_event(event: str, **_: str | int) -> None:
        nonlocal missed
        missed = missed or event == MISS_EVENT

    def on_duration(event: str, duration_secs: float, **about: str | int) -> None:
        nonlocal missed
        if event != COMPILED_EVENT:
            return
        cached, missed = missed, False
        name = str(about.get("fun_name", "")).removeprefix("jit_").removeprefix("jit(").removesuffix(")")
        if cached and duration_secs >= noticeable and name not in reported:
            reported.add(name)
            took = duration(duration_secs)
            screen.say(f"Compiled {PROGRAMS.get(name, name)} in {took}; cached for next time.", style="dim")

    # JAX calls listeners for the whole process.
    jax.monitoring.register_event_listener(on_event)
    jax.monitoring.register_event_duration_secs_listener(on_duration)
    try:
        yield
    finally:
        jax.monitoring.unregister_event_listener(on_event)
        jax.monitoring.unregister_event_duration_listener(on_duration)

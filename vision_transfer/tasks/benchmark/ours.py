"""The worker of a case of this package: compiles it and runs it as training or inference does."""

import base64
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from vision_transfer.runs.prepare import device_text
from vision_transfer.runtime import jax_setup
from vision_transfer.runtime.devices import local_mesh
from vision_transfer.tasks.benchmark.cases import Case
from vision_transfer.tasks.benchmark.chips import peak_flops
from vision_transfer.tasks.benchmark.programs import MOST_STEPS, running_forward, running_step
from vision_transfer.tasks.benchmark.protocol import Work, serve
from vision_transfer.training.step import Chunk, Constants, TrainState

# A trace is for people to read; more steps only make it longer.
TRACED_RUNS = 3


def build(request: dict[str, Any]) -> Work:
    """Sets JAX up as a run does, compiles the case of a request from `measure.our_worker`, and runs it once."""
    jax_setup.configure(Path(request["cache"]), deterministic=request["deterministic"])
    # A program from the cache would have no compile time.
    jax.config.update("jax_enable_compilation_cache", False)
    case: Case = pickle.loads(base64.b64decode(request["case"]))
    mesh = local_mesh()
    lower, arguments = (running_forward if case.work == "forward" else running_step)(case, mesh)
    began = time.perf_counter()
    compiled = lower().compile()
    compile_seconds = time.perf_counter() - began
    run = (_forward if case.work == "forward" else _steps)(compiled, arguments)
    run(1)
    if request["trace"] is not None:
        folder = Path(request["trace"])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "program.hlo.txt").write_text(compiled.as_text() or "", encoding="utf-8")
        with jax.profiler.trace(str(folder)):
            run(TRACED_RUNS)
    device = mesh.devices.flat[0]

    def last_facts() -> dict[str, Any]:
        flops, source = peak_flops(mesh, case.network.numerics) if request["measure_peak"] else (None, None)
        return {
            "device_memory_bytes": (device.memory_stats() or {}).get("peak_bytes_in_use"),
            "peak_flops": flops,
            "peak_source": source,
        }

    memory: Any = compiled.memory_analysis()
    facts = {
        "device": device_text(),
        "library": f"jax {jax.__version__}",
        "compile_seconds": compile_seconds,
        "program_bytes": memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        + memory.temp_size_in_bytes
        - memory.alias_size_in_bytes,
    }
    return run, facts, last_facts


def _forward(compiled: jax.stages.Compiled, arguments: tuple[Any, ...]) -> Callable[[int], None]:
    # A CPU would otherwise compute several batches at once.
    one_at_a_time = jax.default_backend() == "cpu"

    def run(times: int) -> None:
        outputs = None
        for _ in range(times):
            outputs = compiled(*arguments)
            if one_at_a_time:
                jax.block_until_ready(outputs)
        jax.block_until_ready(outputs)

    return run


def _steps(compiled: jax.stages.Compiled, arguments: tuple[TrainState, Chunk, Constants]) -> Callable[[int], None]:
    state, chunk, constants = arguments

    def run(times: int) -> None:
        nonlocal state
        for start in range(0, times, MOST_STEPS):
            steps = min(MOST_STEPS, times - start)
            state = compiled(state, chunk._replace(steps=jnp.int32(steps)), constants)
        jax.block_until_ready(state)

    return run


if __name__ == "__main__":
    serve(build)

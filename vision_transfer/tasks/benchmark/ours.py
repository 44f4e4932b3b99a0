"""The worker of a case of this package: compiles it and runs it as training or inference does, and meters its energy.

Energy that NVIDIA GPUs have used is told by the driver's own library (NVML), which is there wherever the driver is.
Source: NVML API reference, `nvmlDeviceGetTotalEnergyConsumption`: millijoules since the driver was loaded, of Volta and
later. The counter is that of the whole board, whoever uses it.
"""

import base64
import ctypes
import itertools
import math
import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from vision_transfer.errors import is_out_of_memory
from vision_transfer.runs.prepare import device_text
from vision_transfer.runtime import hosts, jax_setup
from vision_transfer.runtime.devices import device_peak_bytes, global_mesh
from vision_transfer.runtime.provenance import code_digest, versions
from vision_transfer.tasks.benchmark.cases import Case
from vision_transfer.tasks.benchmark.chips import peaks
from vision_transfer.tasks.benchmark.input_path import feed_epoch
from vision_transfer.tasks.benchmark.programs import MOST_STEPS, compilers_facts, running_forward, running_step
from vision_transfer.tasks.benchmark.protocol import Work, serve
from vision_transfer.training.device_feed import TrainingRows, chunk_bytes
from vision_transfer.training.step import Chunk, Constants, TrainState

LIBRARY = "libnvidia-ml.so.1"
VISIBLE = "CUDA_VISIBLE_DEVICES"
MILLI = 1e-3
FED_EPOCHS = 3
# A trace is for people to read; more steps only make it longer.
TRACED_RUNS = 3


class EnergyCounter:
    """The counters of the GPUs that this process sees; without any, it reads None."""

    def __init__(self, devices: int) -> None:
        try:
            self._library = ctypes.CDLL(LIBRARY)
        except OSError:
            self._handles: list[ctypes.c_void_p] = []
            return
        names = [name for name in os.environ.get(VISIBLE, "").split(",") if name] or list(map(str, range(devices)))
        self._handles = []
        if self._library.nvmlInit_v2() == 0:
            self._handles = [handle for name in names[:devices] if (handle := self._handle(name)) is not None]

    def joules(self) -> float | None:
        """The sum over the GPUs, or None where a counter cannot be read; only differences mean something."""
        total = 0
        for handle in self._handles:
            millijoules = ctypes.c_ulonglong()
            if self._library.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(millijoules)):
                return None
            total += millijoules.value
        return total * MILLI if self._handles else None

    def _handle(self, name: str) -> ctypes.c_void_p | None:
        """Of a GPU by its number or its UUID, as `$CUDA_VISIBLE_DEVICES` has them."""
        handle = ctypes.c_void_p()
        if name.isdecimal():
            failed = self._library.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(int(name)), ctypes.byref(handle))
        else:
            failed = self._library.nvmlDeviceGetHandleByUUID(name.encode(), ctypes.byref(handle))
        return None if failed else handle


def build(request: dict[str, Any]) -> Work:
    """Sets JAX up as a run does, compiles the case of a request from `measure.our_worker`, and runs it once.

    Several hosts do what the first one is asked; a request of it without a case tells them that there is nothing left.
    """
    request = _set_up(request)
    if request["case"] is None:
        return lambda times: None, {"is_over": True}, dict
    case: Case = pickle.loads(base64.b64decode(request["case"]))
    mesh = global_mesh()
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
    energy, runs, joules = EnergyCounter(mesh.size), 0, 0.0

    def metered(times: int) -> None:
        nonlocal runs, joules
        before = energy.joules()
        run(times)
        if before is not None:
            runs, joules = runs + times, joules + (energy.joules() or before) - before

    numbers = itertools.count()

    def together(times: int) -> None:
        """Runs as often as the first host is asked; the others do until it is asked for none, at its end."""
        while times := hosts.from_first(f"run {next(numbers)}", times):
            metered(times)
            if hosts.is_first():
                break

    def last_facts() -> dict[str, Any]:
        if hosts.is_first():
            together(0)
        # before the feed and the peak need memory of their own
        own_memory = device_peak_bytes()
        return {
            "device_memory_bytes": own_memory,
            "joules_per_image": joules / runs / case.batch if runs and not hosts.several() else None,
            "feed": _feed(case, mesh) if request["measure_feed"] else None,
            "peak": peaks(mesh, case.network.numerics) if request["measure_peak"] else None,
        }

    facts = {
        "device": device_text(),
        "devices": mesh.size,
        "library": f"jax {jax.__version__}",
        "compile_seconds": compile_seconds,
        **compilers_facts(compiled),
    }
    return together, facts, last_facts


def _set_up(request: dict[str, Any]) -> dict[str, Any]:
    """Sets JAX up, together with other hosts if there are any; returns the request of the first one."""
    jax_setup.configure(Path(request["cache"]), deterministic=request["deterministic"])
    # A program from the cache would have no compile time.
    jax.config.update("jax_enable_compilation_cache", False)
    if request["hosts"] is not None:
        hosts.start(request["hosts"])
        hosts.compare("program", {"numeric code (digest)": code_digest(also=("tasks/benchmark",)), **versions()})
    return hosts.from_first("request", request)


def _feed(case: Case, mesh: Mesh) -> dict[str, float] | None:
    """The input path alone: about a chunk's bytes, in batches, from the host to the devices; the best of some epochs.

    None where the case leaves no memory for it.
    """
    dtype = np.dtype(np.uint8 if case.start is None else case.network.numerics.dtype)
    batches = max(1, chunk_bytes(mesh) // (case.batch * math.prod(case.input_shape) * dtype.itemsize))
    count = batches * case.batch
    labels = np.zeros(count, np.int32)
    rows = TrainingRows(np.ones((count, *case.input_shape), dtype), labels, labels.astype(np.uint32))
    try:
        epochs = [feed_epoch(rows, case.batch, epoch, mesh) for epoch in range(FED_EPOCHS)]
    except jax.errors.JaxRuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return None
    return max(epochs, key=lambda fed: fed["images_per_second"])


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
    hosts.finish()

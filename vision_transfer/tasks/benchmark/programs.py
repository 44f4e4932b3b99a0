"""The program that training or inference runs for a case, with arguments of its shapes, for any devices."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vision_transfer import freezing
from vision_transfer.models.network import Params, Variables, apply, init, params_of, prepared_kernels
from vision_transfer.runtime.devices import (
    BATCH_AXIS,
    own_part,
    padded_batch,
    replicate,
    share,
    split_columns,
    split_rows,
)
from vision_transfer.tasks.benchmark.cases import Case
from vision_transfer.training.step import (
    Chunk,
    Constants,
    Examples,
    StepOrder,
    TrainState,
    initial_state,
    run_steps,
    single_step,
)

# Traces and lowers a program.
Lower = Callable[[], jax.stages.Lowered]
EVERYWHERE, SPLIT = PartitionSpec(), PartitionSpec(BATCH_AXIS)
# So small that random data cannot drive the parameters out of range, however long the measurement takes.
RATE = 1e-6
# Limit of the steps in one dispatch.
MOST_STEPS = 64
SEED = 0
PIXEL_VALUES = 256


def _variables(case: Case) -> dict[str, Params]:
    return init(case.network, jax.random.key(SEED))


def _inputs(case: Case, mesh: Mesh) -> np.ndarray:
    """A random batch: `(batch, height, width, channels) uint8`, or non-negative features of the network's dtype."""
    rng = np.random.default_rng(SEED)
    shape = (padded_batch(case.batch, mesh), *case.input_shape)
    if case.start is None:
        return rng.integers(0, PIXEL_VALUES, shape, np.uint8)
    return np.abs(rng.standard_normal(shape, np.float32)).astype(case.network.numerics.dtype)


def _examples(case: Case, mesh: Mesh) -> Examples:
    rows: Any = _inputs(case, mesh)
    labels: Any = np.arange(len(rows), dtype=np.int32) % max(2, case.network.outputs)
    ids: Any = np.arange(len(rows), dtype=np.uint32)
    return Examples(rows, labels, ids)


def running_step(case: Case, mesh: Mesh) -> tuple[Lower, tuple[TrainState, Chunk, Constants]]:
    """A function that lowers `run_steps` for a batch that stays on the devices, and its placed arguments.

    The chunk has one step and may be given up to `MOST_STEPS`. The state is donated.
    """
    drawn = _variables(case)
    state, frozen = _state_and_frozen(case, drawn)
    batch = _examples(case, mesh)
    norms = case.program.inference_layers
    frozen["prepared"] = _prepared(case, mesh, {**drawn, "params": frozen["params"]}, norms)
    rows = np.tile(np.arange(len(batch.labels), dtype=np.int32), (MOST_STEPS, 1))
    weights, rates = np.ones(rows.shape, np.float32), np.full(MOST_STEPS, RATE, np.float32)
    order = StepOrder(split_columns(rows, mesh), split_columns(weights, mesh), replicate(rates, mesh))
    chunk = Chunk(replicate(batch, mesh), order, jnp.int32(0), jnp.int32(1))
    state = replicate(state, mesh)
    constants = Constants(share(frozen, mesh), jax.random.key(SEED), jnp.int32(0))
    lower = partial(run_steps.lower, state, chunk, constants, program=case.program, mesh=mesh, resident=True)
    return lower, (state, chunk, constants)


def running_forward(case: Case, mesh: Mesh) -> tuple[Lower, tuple[Any, ...]]:
    """A function that lowers inference for a batch that stays on the devices, and its placed arguments."""
    drawn = _variables(case)
    drawn["prepared"] = _prepared(case, mesh, drawn)
    images = _inputs(case, mesh)
    placed = share(drawn, mesh), split_rows(images[own_part(len(images), mesh)], mesh)
    return partial(_sharded_forward(case, mesh).lower, *placed), placed


def abstract_program(case: Case, mesh: Mesh) -> tuple[Any, tuple[Any, ...]]:
    """The jitted sharded forward pass or a single step, and the shapes of its arguments.

    Nothing is computed, so the chips of the mesh may be absent. The step has no loop around it: the compiler's cost
    analysis counts the body of a loop once, however often it runs.
    """
    drawn = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), _variables(case))
    size = padded_batch(case.batch, mesh)
    dtype = jnp.uint8 if case.start is None else case.network.numerics.dtype
    shape: Any = jax.ShapeDtypeStruct
    images = shape((size, *case.input_shape), dtype)
    if case.work == "forward":
        return _sharded_forward(case, mesh), (_placed(drawn, mesh, EVERYWHERE), _placed(images, mesh, SPLIT))
    state, frozen = jax.eval_shape(partial(_state_and_frozen, case), drawn)
    labels, ids, weights = (shape((size,), dtype) for dtype in (jnp.int32, jnp.uint32, jnp.float32))
    rate, epoch = (shape((), dtype) for dtype in (jnp.float32, jnp.int32))
    key = jax.eval_shape(partial(jax.random.key, SEED))
    batch = Examples(images, labels, ids)
    arguments = (state, batch, weights, rate, Constants(frozen, key, epoch))
    specs = (EVERYWHERE, SPLIT, SPLIT, EVERYWHERE, EVERYWHERE)
    step = jax.shard_map(
        partial(single_step, case.program), mesh=mesh, in_specs=specs, out_specs=EVERYWHERE, check_vma=False
    )
    placed = (_placed(argument, mesh, spec) for argument, spec in zip(arguments, specs, strict=True))
    return jax.jit(step, donate_argnums=0), tuple(placed)


def compilers_facts(compiled: jax.stages.Compiled) -> dict[str, Any]:
    """FLOPs and bytes that the compiler counts, and the memory that its program holds in bytes; all per device."""
    analysis: Any = compiled.cost_analysis() or {}
    memory: Any = compiled.memory_analysis()
    held = ("argument_size", "output_size", "temp_size", "generated_code_size")
    return {
        "compiler": {"flops": analysis.get("flops", 0.0), "bytes": analysis.get("bytes accessed", 0.0)},
        "program_bytes": sum(getattr(memory, f"{name}_in_bytes") for name in held) - memory.alias_size_in_bytes,
    }


def _sharded_forward(case: Case, mesh: Mesh) -> Any:
    sharded = jax.shard_map(
        partial(apply, case.network, start=case.start, stop=None),
        mesh=mesh,
        in_specs=(EVERYWHERE, SPLIT),
        out_specs=SPLIT,
        check_vma=False,
    )
    return jax.jit(sharded)


def _state_and_frozen(case: Case, drawn: dict[str, Params]) -> tuple[Any, dict[str, Params]]:
    trainable, frozen = freezing.partition(drawn["params"], case.mask)
    state = initial_state(case.program, trainable, drawn["batch_stats"])
    return state, {"params": params_of(case.network.between(case.start), frozen)}


def _prepared(case: Case, mesh: Mesh, frozen: Variables, inference_layers: frozenset[str] | None = None) -> Params:
    batch = padded_batch(case.batch, mesh) // mesh.size
    return prepared_kernels(case.network, frozen, batch=batch, start=case.start, inference_layers=inference_layers)


def _placed(tree: Any, mesh: Mesh, spec: PartitionSpec) -> Any:
    sharding = NamedSharding(mesh, spec)
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)

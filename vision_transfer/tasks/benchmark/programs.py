"""A case as the program that training or inference runs, with arguments of its shapes; for any devices, real or not."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vision_transfer import freezing
from vision_transfer.models.network import Params, apply, init, params_of, prepared_kernels
from vision_transfer.runtime.devices import BATCH_AXIS, padded_batch, share
from vision_transfer.tasks.benchmark.cases import Case
from vision_transfer.train.step import Examples, StepOrder, initial_state, run_steps, single_step

# Traces and lowers.
Lower = Callable[[], jax.stages.Lowered]
EVERYWHERE, SPLIT, BY_COLUMN = PartitionSpec(), PartitionSpec(BATCH_AXIS), PartitionSpec(None, BATCH_AXIS)
# So small that random data cannot drive the parameters out of range, however long it is measured.
RATE = 1e-6
# Steps in one dispatch at most.
MOST_STEPS = 64
SEED = 0
PIXEL_VALUES = 256


def variables(case: Case) -> dict[str, Params]:
    """Random parameters of all layers."""
    return init(case.network, jax.random.key(SEED))


def inputs(case: Case, mesh: Mesh) -> np.ndarray:
    """A random batch: `(batch, height, width, channels) uint8`, or features of the network's dtype, never negative."""
    rng = np.random.default_rng(SEED)
    shape = (padded_batch(case.batch, mesh), *case.input_shape)
    if case.start is None:
        return rng.integers(0, PIXEL_VALUES, shape, np.uint8)
    return np.abs(rng.standard_normal(shape, np.float32)).astype(case.network.numerics.dtype)


def examples(case: Case, mesh: Mesh) -> Examples:
    """A batch with labels and ids."""
    rows: Any = inputs(case, mesh)
    labels: Any = np.arange(len(rows), dtype=np.int32) % max(2, case.network.outputs)
    ids: Any = np.arange(len(rows), dtype=np.uint32)
    return Examples(rows, labels, ids)


def running_step(case: Case, mesh: Mesh) -> tuple[Lower, dict[str, Any]]:
    """What lowers `run_steps` for a batch that stays on the devices, and its arguments by name, placed.

    The arguments lack `count`, the number of steps (at most `MOST_STEPS`). `state` is donated.
    """
    everywhere = NamedSharding(mesh, EVERYWHERE)
    columns = NamedSharding(mesh, BY_COLUMN)
    drawn = variables(case)
    state, frozen = _state_and_frozen(case, drawn)
    batch = examples(case, mesh)
    frozen["prepared"] = _prepared(case, mesh, frozen["params"])
    rows = np.tile(np.arange(len(batch.labels), dtype=np.int32), (MOST_STEPS, 1))
    order = StepOrder(
        jax.device_put(rows, columns),
        jax.device_put(np.ones(rows.shape, np.float32), columns),
        jax.device_put(np.full(MOST_STEPS, RATE, np.float32), everywhere),
    )
    arguments: dict[str, Any] = {
        "state": jax.device_put(state, everywhere),
        "frozen": share(frozen, mesh),
        "examples": jax.device_put(batch, everywhere),
        "order": order,
        "start": jnp.int32(0),
        "key": jax.random.key(SEED),
        "epoch": jnp.int32(0),
    }
    steps = {"program": case.program, "mesh": mesh, "resident": True, "count": jnp.int32(1)}
    return partial(run_steps.lower, **steps, **arguments), arguments


def running_forward(case: Case, mesh: Mesh) -> tuple[Lower, tuple[Any, ...]]:
    """What lowers inference for a batch that stays on the devices, and its arguments, placed."""
    drawn = variables(case)
    drawn["prepared"] = _prepared(case, mesh, drawn["params"])
    placed = (
        share(drawn, mesh),
        jax.device_put(inputs(case, mesh), NamedSharding(mesh, SPLIT)),
    )
    return partial(_sharded_forward(case, mesh).lower, *placed), placed


def abstract_program(case: Case, mesh: Mesh) -> tuple[Any, tuple[Any, ...]]:
    """The jitted sharded step or forward pass, one step without a loop around it, and shapes of its arguments.

    Nothing is computed, so the mesh may be of chips that are not there. A loop would hide its body from the compiler's
    cost analysis, which counts it once however often it runs.
    """
    drawn = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), variables(case))
    size = padded_batch(case.batch, mesh)
    dtype = jnp.uint8 if case.start is None else case.network.numerics.dtype
    images: Any = jax.ShapeDtypeStruct((size, *case.input_shape), dtype)
    if case.work == "forward":
        return _sharded_forward(case, mesh), (_placed(drawn, mesh, EVERYWHERE), _placed(images, mesh, SPLIT))
    state, frozen = jax.eval_shape(partial(_state_and_frozen, case), drawn)
    labels: Any = jax.ShapeDtypeStruct((size,), jnp.int32)
    ids: Any = jax.ShapeDtypeStruct((size,), jnp.uint32)
    batch = Examples(images, labels, ids)
    step = jax.shard_map(
        partial(single_step, case.program),
        mesh=mesh,
        in_specs=(EVERYWHERE, EVERYWHERE, SPLIT, SPLIT, EVERYWHERE, EVERYWHERE, EVERYWHERE),
        out_specs=EVERYWHERE,
        check_vma=False,
    )
    return jax.jit(step, donate_argnums=0), (
        _placed(state, mesh, EVERYWHERE),
        _placed(frozen, mesh, EVERYWHERE),
        _placed(batch, mesh, SPLIT),
        _placed(jax.ShapeDtypeStruct((size,), jnp.float32), mesh, SPLIT),
        _placed(jax.ShapeDtypeStruct((), jnp.float32), mesh, EVERYWHERE),
        _placed(jax.eval_shape(partial(jax.random.key, SEED)), mesh, EVERYWHERE),
        _placed(jax.ShapeDtypeStruct((), jnp.int32), mesh, EVERYWHERE),
    )


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


def _prepared(case: Case, mesh: Mesh, params: Params) -> Params:
    batch = padded_batch(case.batch, mesh) // mesh.size
    return prepared_kernels(case.network, params, batch=batch, start=case.start)


def _placed(tree: Any, mesh: Mesh, spec: PartitionSpec) -> Any:
    sharding = NamedSharding(mesh, spec)
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)

"""The cost of a sweep, estimated from its plan: floating-point operations, bytes on disk, and what runs share."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from timeit import repeat

import jax
import jax.numpy as jnp
import numpy as np

from vision_transfer.config import Config, flatten
from vision_transfer.data.batches import batches_per_pass, steps_of_epoch
from vision_transfer.freezing import counts
from vision_transfer.models.network import Network, all_parameter_shapes
from vision_transfer.runs.build import Stage, cached_variants, resolve_stages
from vision_transfer.runtime.provenance import json_digest
from vision_transfer.tasks.ablation.grid import network_name
from vision_transfer.tasks.benchmark.costs import forward_costs, prefix_flops, step_costs, total
from vision_transfer.tasks.study.plan import PlannedRun
from vision_transfer.tasks.study.runs import FinishedRun
from vision_transfer.tasks.study.tables import grouped

FLOAT32_BYTES = 4
# Moments that an optimizer keeps for each trainable parameter, without momentum.
MOMENTS = {"rmsprop": 1, "adam": 2, "sgd": 0}
# Of an optimizer of the user's own.
MOST_MOMENTS = 2
# A matrix product of this size is large enough to reach the machine's full speed, and takes some 10 ms.
PRODUCT_SIDE, PRODUCT_REPEATS = 1024, 5
# The same for an accelerator of up to a PFLOP a second.
ACCELERATOR_PRODUCT_SIDE = 8192


@dataclass(frozen=True)
class Estimate:
    """The cost of a plan.

    Attributes:
        stages: of all runs.
        trained: stages to train, where a shared one counts once.
        heads: different first stages.
        prefixes: layers whose outputs are cached, by `network_name`.
        flops: of these stages, the evaluations and the prefixes.
        flops_by_run: of the stages and the evaluation of each run by itself, by its name.
        checkpoint_bytes, feature_bytes: on disk, of all runs and of the cached layers.
    """

    stages: int
    trained: int
    heads: int
    prefixes: Mapping[str, tuple[str, ...]]
    flops: int
    flops_by_run: Mapping[str, int]
    checkpoint_bytes: int
    feature_bytes: int


def estimate(runs: Sequence[PlannedRun], networks: Mapping[str, Network], sizes: Mapping[str, int]) -> Estimate:
    """The cost of the remaining runs, which share what they can.

    Args:
        runs: the remaining ones.
        networks: by `network_name`.
        sizes: images of each whole split; a run's own subset is in its config.

    Operations are those of the layer tables. Early stopping cannot be foreseen: a stage counts with all its epochs.
    """
    by_stage: dict[str, int] = {}
    by_run: dict[str, int] = {}
    heads, stage_count, variants, checkpoint_bytes = set(), 0, 0, 0
    cached: dict[str, set[str]] = {}
    for run in runs:
        config, name = run.config, network_name(run.config)
        network = networks[name]
        examples = config.dataset.train_examples or sizes["train"]
        stages = resolve_stages(config, network)
        keys = _stage_keys(config, stages)
        flops = [_stage_flops(config, stage, network, examples, sizes["validation"]) for stage in stages]
        test = total(forward_costs(network, sizes["test"], stages[-1].evaluation_start)).flops
        by_stage |= dict(zip(keys, flops, strict=True)) | {f"test {run.key}": test}
        by_run[run.name] = sum(flops) + test
        heads.add(keys[0])
        stage_count += len(stages)
        variants = max([variants, *map(cached_variants, stages)])
        layers = {stage.cached for stage in stages if stage.cached is not None}
        cached[name] = cached.get(name, set()) | layers
        checkpoint_bytes += _checkpoint_bytes(config, stages[-1], network)
    images = variants * sizes["train"] + sizes["validation"] + sizes["test"]
    prefixes = {name: tuple(sorted(layers, key=networks[name].index)) for name, layers in cached.items() if layers}
    features = sum(math.prod(networks[name].shape_after(layer)) for name in prefixes for layer in prefixes[name])
    flops_of_prefixes = sum(prefix_flops(networks[name], layers[-1], images) for name, layers in prefixes.items())
    return Estimate(
        stages=stage_count,
        trained=sum(not key.startswith("test ") for key in by_stage),
        heads=len(heads),
        prefixes=prefixes,
        flops=sum(by_stage.values()) + flops_of_prefixes,
        flops_by_run=by_run,
        checkpoint_bytes=checkpoint_bytes,
        feature_bytes=features * images * FLOAT32_BYTES,
    )


def seconds_per_flop(finished: Sequence[FinishedRun], flops_by_run: Mapping[str, int]) -> float:
    """The speed of finished runs, from medians over seeds, which a single run on a busy machine does not shift."""
    groups = grouped(finished)
    flops = sum(flops_by_run[group.runs[0].run.name] for group in groups)
    return sum(group.training_seconds for group in groups) / max(1, flops)


def flops_per_second(*, on_accelerator: bool = False) -> float:
    """The speed of matrix products in float32: the best of a few, by NumPy or on the accelerator, if there is one."""
    if on_accelerator and jax.default_backend() != "cpu":
        return accelerator_flops_per_second(ACCELERATOR_PRODUCT_SIDE)
    matrix = np.ones((PRODUCT_SIDE, PRODUCT_SIDE), np.float32)
    return 2 * PRODUCT_SIDE**3 / min(repeat(lambda: matrix @ matrix, number=1, repeat=PRODUCT_REPEATS))


def accelerator_flops_per_second(side: int) -> float:
    """The same by JAX on its default device, for matrices of this side."""
    matrix, multiply = jnp.ones((side, side)), jax.jit(jnp.matmul)
    multiply(matrix, matrix).block_until_ready()
    times = repeat(lambda: multiply(matrix, matrix).block_until_ready(), number=1, repeat=PRODUCT_REPEATS)
    return 2 * side**3 / min(times)


def _stage_keys(config: Config, stages: Sequence[Stage]) -> list[str]:
    """A key for each stage, equal for the runs that share it."""
    values = flatten(config)
    key = json_digest([value for path, value in values.items() if not path.startswith(("stages.", "schedule"))])
    own = [{path: value for path, value in values.items() if path.startswith(f"stages.{one.name}.")} for one in stages]
    return list(accumulate(own, lambda before, one: json_digest([before, one]), initial=key))[1:]


def _stage_flops(config: Config, stage: Stage, network: Network, examples: int, validation: int) -> int:
    values = config.stages[stage.name]
    steps = values.epochs * steps_of_epoch(values, examples, config.batch_size)
    step = total(step_costs(network, stage.mask, config.batch_size, stage.start)).flops
    # The last batch of an epoch is smaller.
    share = examples / (batches_per_pass(examples, config.batch_size) * config.batch_size)
    validated = total(forward_costs(network, validation, stage.evaluation_start)).flops
    return int(steps * step * share) + values.epochs * validated


def _checkpoint_bytes(config: Config, last: Stage, network: Network) -> int:
    """Best and last weights and the optimizer's moments of the last stage, the one that no other run shares."""
    trainable = counts(all_parameter_shapes(network), last.mask).trainable
    optimizer = config.stages[last.name].optimizer
    copies = 3 + MOMENTS.get(optimizer.name, MOST_MOMENTS) + (optimizer.momentum > 0 and optimizer.name != "adam")
    return trainable * copies * FLOAT32_BYTES

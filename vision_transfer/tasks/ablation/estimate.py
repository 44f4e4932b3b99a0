"""What a sweep will cost, from its plan alone: floating-point operations, bytes on the disk, and what is shared."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vision_transfer.config import Config, flatten
from vision_transfer.data.batches import batches_per_pass
from vision_transfer.freezing import counts
from vision_transfer.models.network import Network, all_parameter_shapes
from vision_transfer.runs.build import Stage, cached_variants, resolve_stages
from vision_transfer.runtime.provenance import json_digest
from vision_transfer.tasks.ablation.grid import run_key
from vision_transfer.tasks.benchmark.costs import forward_costs, step_costs, total
from vision_transfer.tasks.study.plan import PlannedRun

FLOAT32_BYTES = 4
# Moments that an optimizer keeps of each trainable parameter, without momentum.
MOMENTS = {"rmsprop": 1, "adam": 2, "sgd": 0}
# A matrix product of this side is large enough to reach the machine's pace and takes some hundredths of a second.
PRODUCT_SIDE, PRODUCT_REPEATS = 1024, 5


@dataclass(frozen=True)
class Sizes:
    """Images of a split each; those of training are all that there are."""

    train: int
    validation: int
    test: int


@dataclass(frozen=True)
class Estimate:
    """What a plan costs.

    Attributes:
        runs: how many.
        stages: that they have together.
        trained: stages that are left to train, each shared one once.
        heads: different first stages.
        prefixes: layers whose outputs are cached.
        flops: of what is trained, with each shared stage once, and of the prefixes.
        flops_by_run: of each run by itself, its stages and its evaluation, by name.
        checkpoint_bytes: of all runs.
        feature_bytes: of the cached layers.
    """

    runs: int
    stages: int
    trained: int
    heads: int
    prefixes: tuple[str, ...]
    flops: int
    flops_by_run: Mapping[str, int]
    checkpoint_bytes: int
    feature_bytes: int


def estimate(runs: Sequence[PlannedRun], network: Network, sizes: Sizes) -> Estimate:
    """The cost of runs that share what they can.

    Operations are those of the layer tables; patience is not foreseen, so that a stage counts with all its epochs.

    Args:
        runs: those that are left to do.
        network: the same for all.
        sizes: of the splits.
    """
    by_stage: dict[str, int] = {}
    by_run: dict[str, int] = {}
    heads, prefixes, number, kept = set(), {}, 0, 0
    for run in runs:
        config = run.config
        examples = config.dataset.train_examples or sizes.train
        stages = resolve_stages(config, network)
        keys = _chain(config, stages)
        flops = [_stage_flops(config, stage, network, examples, sizes.validation) for stage in stages]
        last = stages[-1]
        test = total(forward_costs(network, sizes.test, last.evaluation_start)).flops
        by_stage |= dict(zip(keys, flops, strict=True)) | {f"test {run_key(config)}": test}
        by_run[run.name] = sum(flops) + test
        heads.add(keys[0])
        number += len(stages)
        prefixes |= {stage.cached: stage for stage in stages if stage.cached is not None}
        kept += _checkpoint_bytes(config, last, network)
    variants = max((cached_variants(run.config) for run in runs), default=0)
    images = variants * sizes.train + sizes.validation + sizes.test
    layers = tuple(sorted(prefixes, key=network.index))
    prefix_flops = 0
    if layers:
        behind = total(forward_costs(network, images, network.after(layers[-1]))).flops
        prefix_flops = total(forward_costs(network, images)).flops - behind
    rows = sum(int(np.prod(network.shape_after(layer))) for layer in layers)
    return Estimate(
        len(runs),
        number,
        sum(not key.startswith("test ") for key in by_stage),
        len(heads),
        layers,
        sum(by_stage.values()) + prefix_flops,
        by_run,
        kept,
        rows * images * FLOAT32_BYTES,
    )


def flops_per_second() -> float:
    """The pace of this machine's matrix products in float32, by the best of a few."""
    matrix = np.ones((PRODUCT_SIDE, PRODUCT_SIDE), np.float32)
    best = float("inf")
    for _ in range(PRODUCT_REPEATS):
        began = time.perf_counter()
        np.matmul(matrix, matrix)
        best = min(best, time.perf_counter() - began)
    return 2 * PRODUCT_SIDE**3 / best


def _chain(config: Config, stages: Sequence[Stage]) -> list[str]:
    """A key for each stage that is the same where runs share it."""
    values = flatten(config)
    key = json_digest([value for path, value in values.items() if not path.startswith(("stages.", "schedule"))])
    keys = []
    for stage in stages:
        own = {path: value for path, value in values.items() if path.startswith(f"stages.{stage.name}.")}
        key = json_digest([key, own])
        keys.append(key)
    return keys


def _stage_flops(config: Config, stage: Stage, network: Network, examples: int, validation: int) -> int:
    values = config.stages[stage.name]
    steps = values.epochs * (values.steps_per_epoch or batches_per_pass(examples, config.batch_size))
    step = total(step_costs(network, stage.mask, config.batch_size, stage.start)).flops
    # The last batch of a pass is smaller.
    share = examples / (batches_per_pass(examples, config.batch_size) * config.batch_size)
    validated = total(forward_costs(network, validation, stage.evaluation_start)).flops
    return int(steps * step * share) + values.epochs * validated


def _checkpoint_bytes(config: Config, last: Stage, network: Network) -> int:
    """Best and last weights, and the optimizer's moments, of the stage that no other run shares."""
    trainable = counts(all_parameter_shapes(network), last.mask).trainable
    optimizer = config.stages[last.name].optimizer
    copies = 3 + MOMENTS[optimizer.name] + (optimizer.momentum > 0 and optimizer.name != "adam")
    return trainable * copies * FLOAT32_BYTES

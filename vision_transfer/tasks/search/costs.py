"""The time that a candidate will take: its floating-point operations at the speed that the search has measured so far.

A network's speed per operation differs by a factor of ten between kinds of layers, so each backbone's own measurements
come first. Only times that runs have recorded enter, so that a search that was interrupted plans as it would have done.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vision_transfer.config import Config
from vision_transfer.data.batches import steps_of_epoch
from vision_transfer.models.layers import DepthwiseConv, SeparableConv, layers_of
from vision_transfer.models.network import Network
from vision_transfer.runs.build import Stage, cached_variants, resolve_stages
from vision_transfer.tasks.benchmark.costs import forward_costs, prefix_flops, step_costs, total

# Seconds for data, weights and compilation, and for fitting a head on features, before any run has taken them.
OVERHEAD_SECONDS = 10.0
# Of the speed of a matrix product: what a forward pass reaches before one of its kind is measured. Depthwise
# convolutions are slow; dense ones, which Winograd's transforms shorten, are at least as fast as a product.
DEPTHWISE_EFFICIENCY, DENSE_EFFICIENCY = 0.25, 1.0
# Time for an operation of training, relative to one of a forward pass, before any training is measured.
TRAINING_SLOWNESS = 1.5


@dataclass(frozen=True)
class Work:
    """Floating-point operations of a run: forward passes (features, validation), and training steps of one epoch each.

    `epochs` is the number of epochs of the last stage; the head's steps on cached features are negligible. With folds
    it is the work of `runs` runs.
    """

    forward: float
    epoch: float
    epochs: int
    runs: int = 1

    @property
    def training(self) -> float:
        """Operations of all epochs."""
        return self.epoch * self.epochs


@dataclass(frozen=True)
class Measured:
    """The measured cost of a finished run, or of those of all folds; `seconds` is all of it.

    `depthwise` tells whether the backbone has depthwise convolutions.
    """

    backbone: str
    depthwise: bool
    work: Work
    forward_seconds: float
    training_seconds: float
    seconds: float

    @property
    def overhead(self) -> float:
        """Seconds of a run besides forward passes and fine-tuning; 0 where a stage ended before its last epoch."""
        return max(0.0, self.seconds - self.forward_seconds - self.training_seconds) / self.work.runs


@dataclass(frozen=True)
class Speed:
    """Seconds per operation of a backbone, and besides operations of a run that trains a head or fine-tunes."""

    forward: float
    training: float
    head_overhead: float = OVERHEAD_SECONDS
    tuning_overhead: float = OVERHEAD_SECONDS

    def seconds(self, work: Work) -> float:
        """The expected time of the runs."""
        overhead = self.tuning_overhead if work.epoch else self.head_overhead
        return overhead * work.runs + work.forward * self.forward + work.training * self.training


def run_work(
    config: Config,
    network: Network,
    sizes: Mapping[str, int],
    *,
    has_features: bool,
    has_prefixes: bool,
    is_tested: bool,
) -> Work:
    """The work of a run on splits of these sizes.

    With `has_features`, those of the whole backbone are cached; with `has_prefixes`, those of all layers that its
    stages train from, of all images.
    """
    examples = config.dataset.train_examples or sizes["train"]
    judged = sizes["validation"] + (sizes["test"] if is_tested else 0)
    stages = resolve_stages(config, network)
    last = stages[-1]
    forward = 0.0
    for stage in stages:
        whole = stage.cached == network.backbone[-1].name
        variants = cached_variants(stage)
        found = (whole and has_features) or (variants and has_prefixes)
        if stage.cached is not None and not found:
            forward += prefix_flops(network, stage.cached, variants * examples + judged)
    if last.cached != network.backbone[-1].name:
        forward += total(forward_costs(network, judged, last.evaluation_start)).flops
        return Work(forward, _epoch(config, last, network, examples, sizes["validation"]), last.settings.epochs)
    return Work(forward, 0.0, 0)


def has_depthwise(network: Network) -> bool:
    """Whether the backbone has depthwise convolutions, whose speed says nothing about that of dense ones."""
    return any(isinstance(row, DepthwiseConv | SeparableConv) for row in layers_of(network.backbone))


def speed_of(backbone: str, depthwise: bool, measured: Sequence[Measured], product: float) -> Speed:
    """The speed of a backbone, from its own runs, else from those of all that are or are not `depthwise` like it.

    Without any it is derived from `product`, the seconds per operation of a matrix product. Runs that would have been
    faster than that found their features in the cache, and say nothing.
    """
    own = [one for one in measured if one.backbone == backbone]
    alike = [one for one in measured if one.depthwise == depthwise]

    def of(kind: str) -> float | None:
        return _ratio(own, kind, product) or _ratio(alike, kind, product)

    forward = of("forward") or product / (DEPTHWISE_EFFICIENCY if depthwise else DENSE_EFFICIENCY)
    heads, tunings = ([one.overhead for one in measured if bool(one.work.epoch) == tuned] for tuned in (False, True))
    return Speed(
        forward,
        of("training") or forward * TRAINING_SLOWNESS,
        float(np.mean(heads)) if heads else OVERHEAD_SECONDS,
        float(np.mean(tunings)) if tunings else OVERHEAD_SECONDS,
    )


def _ratio(measured: Sequence[Measured], kind: str, least: float) -> float | None:
    """Seconds per operation over all runs that did such work and took at least `least`, None without any."""
    pairs = [(getattr(one, f"{kind}_seconds"), getattr(one.work, kind)) for one in measured]
    pairs = [(seconds, work) for seconds, work in pairs if work and seconds >= least * work]
    return sum(seconds for seconds, _ in pairs) / sum(work for _, work in pairs) if pairs else None


def _epoch(config: Config, stage: Stage, network: Network, examples: int, validation: int) -> float:
    step = total(step_costs(network, stage.mask, config.batch_size, stage.start)).flops
    steps = stage.settings.validation_steps
    validated = validation if steps is None else steps * config.eval_batch_size
    batches = steps_of_epoch(stage.settings, examples, config.batch_size)
    return batches * step + total(forward_costs(network, validated, stage.evaluation_start)).flops

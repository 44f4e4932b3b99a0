"""The plan of a transfer curve: one pretraining, then features, fine-tuning and from scratch at several sizes of data.

The stages are those of the config, so that each of their values can be set on the command line: `pretrain` on the
source data, `head` on its frozen convolutions, `whole` continues with all trainable layers, `scratch` starts from
random weights.
"""

from dataclasses import replace
from typing import Literal

from vision_transfer.config import Config
from vision_transfer.errors import UserError
from vision_transfer.tasks.study.plan import SEED, SIZE, Label, PlannedRun, Study, with_least_steps

PRETRAINING, FEATURES, FINE_TUNING, FROM_SCRATCH = "pretraining", "features", "fine_tuning", "from_scratch"
STAGES = {PRETRAINING: "pretrain", FEATURES: "head", FINE_TUNING: "whole", FROM_SCRATCH: "scratch"}
# The layers taken from the run that one starts from: a new task needs a new head, continuing does not.
TAKEN: dict[str, Literal["backbone", "all"]] = {FEATURES: "backbone", FINE_TUNING: "all"}
METHOD = "method"


def transfer_curve(config: Config, all_examples: int) -> Study:
    """The study that a config of the task `transfer_curve` describes.

    A seed determines initialisation, order, dropout and the images of the subset; all runs share one pretraining. The
    fine-tuning of a seed and size continues its features run, so that the head is trained once for both. A size of 0
    means all examples of the target data.

    Raises:
        UserError: a size is larger than the data.
    """
    runs = [_pretraining(config)]
    sizes = dict.fromkeys(size or all_examples for size in config.study.train_examples)
    for size in sizes:
        if not 1 <= size <= all_examples:
            raise UserError(f"config.study.train_examples: got {size}; the data has {all_examples:,} training images")
        for seed in config.study.seeds:
            features = _run(config, FEATURES, size, seed, PRETRAINING, all_examples)
            runs += [
                features,
                _run(config, FINE_TUNING, size, seed, features.name, all_examples),
                _run(config, FROM_SCRATCH, size, seed, None, all_examples),
            ]
    return Study(config.name, tuple(runs), over=SEED)


def _pretraining(config: Config) -> PlannedRun:
    study = config.study
    source = replace(config.dataset, name=study.source_name, root=study.source_root)
    return PlannedRun(PRETRAINING, replace(_single(config, PRETRAINING), dataset=source), {}, compared=False)


def _run(config: Config, method: str, size: int, seed: int, start: str | None, all_examples: int) -> PlannedRun:
    examples = config.dataset.train_examples if size == all_examples else size
    own = replace(
        _single(config, method),
        seed=seed,
        dataset=replace(config.dataset, train_examples=examples, subset_seed=seed),
        init_from_layers=TAKEN.get(method, config.init_from_layers),
    )
    labels: dict[str, Label] = {METHOD: method, SIZE: size, SEED: seed}
    return PlannedRun(f"{method}, {size:,} images, seed {seed}", with_least_steps(own, size), labels, start)


def _single(config: Config, method: str) -> Config:
    """A training run with only the stage of a method."""
    stage = STAGES[method]
    return replace(
        config,
        task="train",
        name=f"{config.name}_{method}",
        stages={stage: config.stages[stage]},
        schedule=(stage,),
    )

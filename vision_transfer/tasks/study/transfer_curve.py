"""The plan of a transfer curve: one pretraining, then features, fine-tuning and from scratch at several sizes of data.

The stages are the config's, so that each of their values can be set from the command line: `pretrain` on the source,
`head` on its frozen convolutions, `whole` from there on with all that trains, `scratch` from random weights.
"""

from vision_transfer.config import Config, with_stages
from vision_transfer.data.batches import batches_per_pass
from vision_transfer.errors import UserError
from vision_transfer.tasks.study.plan import PlannedRun, Study

PRETRAINING, FEATURES, FINE_TUNING, FROM_SCRATCH = "pretraining", "features", "fine_tuning", "from_scratch"
STAGES = {PRETRAINING: "pretrain", FEATURES: "head", FINE_TUNING: "whole", FROM_SCRATCH: "scratch"}
# What is taken of the run that one starts from: a new task needs a new head, going on does not.
TAKEN = {FEATURES: "backbone", FINE_TUNING: "all"}
METHOD, SIZE, SEED = "method", "training images", "seed"


def transfer_curve(config: Config, all_examples: int) -> Study:
    """The study that a config of the task `transfer_curve` describes.

    A seed draws initialisation, order, dropout and which images the subset has; the pretraining is one for all. The
    fine-tuning of a seed and size goes on from its features run, so that the head is trained once for both.

    Args:
        config: of the task.
        all_examples: training images of the target data, which size 0 stands for.

    Raises:
        UserError: a stage is missing, or a size that the data does not have.
    """
    for stage in STAGES.values():
        if stage not in config.stages:
            raise UserError(
                f"config.stages: a transfer curve needs a stage {stage!r}; it has {', '.join(config.stages)}"
            )
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
    own = _single(config, PRETRAINING)
    own.dataset.name, own.dataset.root = config.study.source_name, config.study.source_root
    return PlannedRun(PRETRAINING, own, {}, compared=False)


def _run(config: Config, method: str, size: int, seed: int, start: str | None, all_examples: int) -> PlannedRun:
    own = _single(config, method)
    own.seed = own.dataset.subset_seed = seed
    own.dataset.train_examples = config.dataset.train_examples if size == all_examples else size
    own.init_from_layers = TAKEN.get(method, own.init_from_layers)
    stage = own.stages[STAGES[method]]
    if batches_per_pass(size, config.batch_size) < config.study.least_steps and stage.steps_per_epoch is None:
        stage.steps_per_epoch = config.study.least_steps
    labels = {METHOD: method, SIZE: size, SEED: seed}
    return PlannedRun(f"{method}, {size:,} images, seed {seed}", own, labels, start)


def _single(config: Config, method: str) -> Config:
    """A training run of the one stage of a method."""
    own = config.copy_and_resolve_references()
    stage = STAGES[method]
    with_stages(own, **{stage: config.stages[stage].copy_and_resolve_references()})
    own.task = "train"
    own.name = f"{config.name}_{method}"
    return own

"""The grid of an ablation as a list of runs: masks × stage settings × values of fields × sizes × seeds.

Values of fields are those of `FIELD_AXES`. Settings of the stages are learning rates, multipliers and schedules. The
stages are those of the config: `head` trains only the head, `tune` what a mask leaves trainable. A schedule is
their order:

- `head_first`: `head`, then `tune` with everything that the mask leaves trainable at once (the textbooks' order);
- `together`: only `tune`, head and backbone together from the start;
- `gradual`: `head`, then one more layer at a time from the top (Howard and Ruder 2018, arXiv:1801.06146), each for
  `ablation.epochs_a_layer` epochs; the stage with the whole mask has the remaining epochs of `tune`.

A mask that trains only the head is a single run of the stage `head`, for any schedule and rates of `tune`. One that
trains no batch norm of the backbone is a single run for all values of `model.batch_norm_statistics`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product

from vision_transfer.config import Config, StageConfig, value_at, with_value
from vision_transfer.errors import UserError
from vision_transfer.models.network import Network
from vision_transfer.runs.build import DataFacts, build_network, with_each_backbone
from vision_transfer.tasks.ablation.masks import MaskFacts, expanded, mask_facts
from vision_transfer.tasks.study.plan import (
    ANY,
    BACKBONE,
    BATCH,
    POOLING,
    SEED,
    SIZE,
    STATISTICS,
    Label,
    PlannedRun,
    Study,
    with_least_steps,
)

HEAD, TUNE = "head", "tune"
TOGETHER, GRADUAL = "together", "gradual"
HEAD_ONLY_SCHEDULE = "head only"
# In `ablation.multipliers`: no rules, and the separator of two rules of one value.
NO_RULES, BETWEEN_RULES = "none", ";"
MASK, SCHEDULE, RATE, MULTIPLIERS = "mask", "schedule", "learning rate", "multipliers"
STATISTICS_FIELD, POOLING_FIELD = "model.batch_norm_statistics", "model.pooling"
# Label -> the list in `config.ablation`, and the field that its values are of.
FIELD_AXES = {
    BACKBONE: ("backbones", "model.backbone"),
    POOLING: ("pooling", POOLING_FIELD),
    BATCH: ("batch_sizes", "batch_size"),
    STATISTICS: ("batch_norm_statistics", STATISTICS_FIELD),
}


def networks_of(config: Config, facts: DataFacts) -> dict[str, Network]:
    """The network of each backbone and pooling that the config compares, by `network_name`.

    Raises:
        UserError: an unknown backbone, or fields that contradict it or the data.
    """
    return {
        network_name(one): build_network(one, facts)
        for backbone in with_each_backbone(config)
        for one in (with_value(backbone, POOLING_FIELD, value) for value in _field_values(config)[POOLING])
    }


def network_name(config: Config) -> str:
    """The network of a run: its backbone, and whether the head sees all stages."""
    model = config.model
    return f"{model.backbone} with all stages" if model.pooling == "layers" else model.backbone


def ablation(config: Config, networks: Mapping[str, Network], all_examples: int) -> Study:
    """The study that a config of the task `ablation` describes; combinations that are the same run are in it once.

    A seed determines initialisation, order, dropout and the images of a subset. A size of 0 means all examples.

    Args:
        config: the grid and what its runs have in common.
        networks: see `networks_of`.
        all_examples: training images of the data.

    Raises:
        UserError: an axis of the grid is empty, or one of its values does not fit the network or the data.
    """
    _check(config, all_examples)
    grid = config.ablation
    rates = tuple(grid.learning_rates) or (config.stages[TUNE].optimizer.lr,)
    sizes = dict.fromkeys(size or all_examples for size in config.study.train_examples)
    axes = {SCHEDULE: grid.schedules, RATE: rates, MULTIPLIERS: grid.multipliers}
    several = [name for name, values in (axes | _field_values(config)).items() if len(values) > 1]
    shown = {MASK, SIZE, SEED, *several}
    runs: dict[str, PlannedRun] = {}
    for (size, seed), (variant, mask, values), (schedule, rate, rules) in product(
        product(sizes, config.study.seeds),
        list(_variants(config, networks)),
        product(grid.schedules, rates, grid.multipliers),
    ):
        own = _with_data(variant, size, seed, all_examples)
        labels: dict[str, Label] = {BACKBONE: values[BACKBONE], MASK: mask.spec} | values
        if mask.layers:
            own = _with_stages(own, _stages(config, mask, schedule, rate, rules))
            labels |= {SCHEDULE: schedule, RATE: rate, MULTIPLIERS: rules}
        else:
            own = _with_stages(own, {HEAD: replace(config.stages[HEAD], freeze=mask.spec)})
            labels |= {SCHEDULE: HEAD_ONLY_SCHEDULE, RATE: own.stages[HEAD].optimizer.lr, MULTIPLIERS: NO_RULES}
        own = with_least_steps(own, size)
        labels |= {SIZE: size, SEED: seed}
        labels = {name: value for name, value in labels.items() if name in shown}
        run = PlannedRun(_name(labels), own, labels)
        runs.setdefault(run.key, run)
    return Study(config.name, tuple(runs.values()))


def _field_values(config: Config) -> dict[str, tuple[Label, ...]]:
    """The values of each axis that is a field; its value in the config where the grid lists none."""
    return {
        label: tuple(dict.fromkeys(getattr(config.ablation, listed))) or (value_at(config, path),)
        for label, (listed, path) in FIELD_AXES.items()
    }


def _masks(masks: tuple[str, ...], network: Network, backbone: str) -> list[MaskFacts]:
    try:
        return [mask_facts(spec, network) for spec in expanded(masks, network, backbone)]
    except UserError as error:
        words = "the words all, none, last_stage, every_cut and every_block fit every backbone"
        raise UserError(f"{error} (backbone {backbone}; {words})") from error


def _variants(config: Config, networks: Mapping[str, Network]) -> Iterator[tuple[Config, MaskFacts, dict[str, Label]]]:
    """The config with each combination of field values and each mask, and the labels of these values."""
    values = _field_values(config)
    for combination in product(*values.values()):
        labels = dict(zip(values, combination, strict=True))
        own = config
        for label, value in labels.items():
            own = with_value(own, FIELD_AXES[label][1], value)
        for mask in _masks(config.ablation.masks, networks[network_name(own)], own.model.backbone):
            if mask.trains_norms:
                yield own, mask, labels
            else:
                unchanged = config.model.batch_norm_statistics
                yield with_value(own, STATISTICS_FIELD, unchanged), mask, labels | {STATISTICS: ANY}


def _check(config: Config, all_examples: int) -> None:
    for name in ("masks", "schedules", "multipliers"):
        if not getattr(config.ablation, name):
            raise UserError(f"config.ablation.{name}: is empty, so there is nothing to run")
    for size in config.study.train_examples:
        if not 0 <= size <= all_examples:
            raise UserError(
                f"config.study.train_examples: got {size}; the data has {all_examples:,} training images (0: all)"
            )


def _with_data(config: Config, size: int, seed: int, all_examples: int) -> Config:
    own = replace(config, task="train", name=f"{config.name}_run", seed=seed)
    # a subset of the data (`dataset.train_examples`) is another one for each seed, too, and contains the smaller ones
    examples = config.dataset.train_examples if size == all_examples else size
    if examples is None:
        return own
    return replace(own, dataset=replace(config.dataset, train_examples=examples, subset_seed=seed))


def _stages(config: Config, mask: MaskFacts, schedule: str, rate: float, rules: str) -> dict[str, StageConfig]:
    """The stages of a run, in their order."""
    multipliers = () if rules == NO_RULES else tuple(rule.strip() for rule in rules.split(BETWEEN_RULES))
    optimizer = replace(config.stages[TUNE].optimizer, lr=rate, lr_multipliers=multipliers)
    # A run of a mask trains it, also where the head alone would do.
    tune = replace(config.stages[TUNE], freeze=mask.spec, optimizer=optimizer, skip_from=None)
    stages = {} if schedule == TOGETHER else {HEAD: replace(config.stages[HEAD], freeze="all")}
    if schedule == GRADUAL:
        if mask.spec.startswith("regex:"):
            raise UserError(
                f"config.ablation.schedules: gradual unfreezing goes layer by layer, but {mask.spec!r} names "
                "parameters; use below:, last: or only:"
            )
        epochs, from_the_top = config.ablation.epochs_a_layer, mask.layers[::-1]
        for count in range(1, len(from_the_top)):
            stages[f"unfreeze_{from_the_top[count - 1]}"] = replace(
                tune,
                freeze=f"only:{','.join(from_the_top[:count])}",
                epochs=epochs,
                start_from=tune.start_from if count == 1 else "last",
                patience=None,
            )
        if len(from_the_top) > 1:
            left = tune.epochs - epochs * (len(from_the_top) - 1)
            tune = replace(tune, epochs=max(1, left), start_from="last")
    return stages | {TUNE: tune}


def _with_stages(config: Config, stages: dict[str, StageConfig]) -> Config:
    return replace(config, stages=stages, schedule=tuple(stages))


def _name(labels: dict[str, Label]) -> str:
    words = {BATCH: "batches of {}", SIZE: "{:,} images", SEED: "seed {}", RATE: "rate {:g}"}
    return ", ".join(words.get(name, "{}").format(value) for name, value in labels.items())

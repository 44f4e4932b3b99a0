"""Making, checking and reading a configuration; `fields.py` lists what it holds.

A file in `configs/` starts from `default_config()` and changes values; `validate` names the field that is wrong, what
it got and what is allowed.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict, config_dict

from vision_transfer.config.schema import FIELDS, STAGE_FIELDS, Field
from vision_transfer.errors import UserError

# An ml_collections.ConfigDict; no type checker can know its fields.
Config = Any

# Fields that say where, how often or how much is written: they do not change a run's numbers, so its digest omits them.
NOT_IN_DIGEST = (
    "dataset.root",
    "model.weights_path",
    "init_from",
    "features.budget_gb",
    "checkpoint",
    "log",
    "benchmark",
    "study",
    "ablation",
    "slurm",
    "probe",
    "check",
)


def default_config() -> Config:
    """All fields at their defaults, no stages; locked, so that an unknown field is an error where it is set."""
    config = _tree(FIELDS)
    config.stages = ConfigDict()
    return config.lock()


def stage(**values: Any) -> Config:
    """A stage at its defaults, changed by `values`; nested values as dictionaries: `optimizer={'lr': 1e-5}`."""
    config = _tree(STAGE_FIELDS).lock()
    config.update(values)
    return config


def with_stages(config: Config, **stages: Config) -> Config:
    """Sets the stages and, by their order here, the schedule."""
    with config.unlocked():
        config.stages = ConfigDict(stages)
    config.schedule = tuple(stages)
    return config


def validate(config: Config) -> None:
    """Checks every value against the schema.

    Raises:
        UserError: with one line per field that is wrong.
    """
    problems = list(_problems(config))
    if problems:
        raise UserError("\n".join(problems))


def digested(config: Config) -> dict[str, Any]:
    """The part of a configuration that determines a run's numbers, as plain JSON values."""
    flat = {f"{path}": value for path, value in flatten(config).items()}
    return {
        path: value
        for path, value in flat.items()
        if not any(path == omitted or path.startswith(f"{omitted}.") for omitted in NOT_IN_DIGEST)
    }


def meaning_of(path: str) -> str:
    """The meaning of the field at a dotted path: `batch_size`, `stages.head.optimizer.lr`."""
    group, _, rest = path.partition(".")
    field = STAGE_FIELDS.get(rest.partition(".")[2]) if group == "stages" else FIELDS.get(path)
    return field.meaning if field else "of this config only"


def flatten(config: Config, prefix: str = "") -> dict[str, Any]:
    """Leaves of a configuration by dotted path, sorted; tuples become lists, as in JSON."""
    flat: dict[str, Any] = {}
    for key in sorted(config):
        value = config[key]
        if isinstance(value, Mapping | ConfigDict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return flat


def _tree(fields: Mapping[str, Field]) -> Config:
    config = ConfigDict()
    for path, field in fields.items():
        *parents, name = path.split(".")
        node: Any = config
        for parent in parents:
            if parent not in node:
                node[parent] = ConfigDict()
            node = node[parent]
        node[name] = config_dict.placeholder(field.kind) if field.default is None else field.default
    return config


def _problems(config: Config) -> Iterator[str]:
    yield from _field_problems(config, FIELDS, "config")
    schedule, stages = config.schedule, config.stages
    if config.task == "train" and not schedule:
        yield "config.schedule: is empty; it lists the stages to run, such as ('head', 'block5')"
    for name in schedule:
        if name not in stages:
            yield f"config.schedule: names stage {name!r}, not in config.stages ({', '.join(stages)})"
        elif schedule.count(name) > 1:
            yield f"config.schedule: stage {name!r} stands in it twice; give the second one a name of its own"
        else:
            yield from _field_problems(stages[name], STAGE_FIELDS, f"config.stages.{name}")
    monitors = {stages[name].monitor for name in schedule if name in stages}
    if config.evaluate == "best_stage" and len(monitors) > 1:
        yield (
            f"config.evaluate: best_stage compares stages that monitor {' and '.join(sorted(monitors))}; set one "
            "monitor in all of them, or evaluate=best"
        )
    for features in config.model.hidden:
        if not isinstance(features, int) or features < 1:
            yield f"config.model.hidden: got {config.model.hidden!r}; allowed are whole numbers from 1"
            break


def _field_problems(config: Config, fields: Mapping[str, Field], where: str) -> Iterator[str]:
    for path, field in fields.items():
        value = _get(config, path)
        if value is None:
            continue
        if field.choices and value not in field.choices:
            yield f"{where}.{path}: got {value!r}; allowed are {', '.join(map(str, field.choices))}"
        elif isinstance(value, float) and not math.isfinite(value):
            yield f"{where}.{path}: got {value!r}; allowed is a finite number ({field.meaning})"
        elif field.minimum is not None and not value >= field.minimum:
            yield f"{where}.{path}: got {value!r}; allowed is {field.minimum:g} or more ({field.meaning})"
        elif field.below is not None and not value < field.below:
            yield f"{where}.{path}: got {value!r}; allowed is less than {field.below:g} ({field.meaning})"


def _get(config: Config, path: str) -> Any:
    value: Any = config
    for part in path.split("."):
        value = value[part]
    return value

"""The border between what people write and typed configurations: every value is checked here, once.

`checked` turns a `ConfigDict` or the JSON of a `config.json` into a `Config`; `validate` checks a `Config` that the
program itself has made of another. A message names the field, the value, and what is allowed.
"""

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from vision_transfer.config.config_dict import ConfigDict
from vision_transfer.config.fields import FIELDS, STAGE_FIELDS, Field, fields_of
from vision_transfer.config.references import is_reference, name_of
from vision_transfer.config.schema import AugmentConfig, Config, SplitsConfig, StageConfig
from vision_transfer.config.task_schema import DecisionConfig
from vision_transfer.errors import UserError, nearest_names

Group = TypeVar("Group")
KIND_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", tuple: "a list"}
# Largest values in the units of a preset: turns and columns per row, instead of degrees.
LAYERS_MAXIMUM = {"rotation": 1.0, "shear": 1.0}
# Tasks that cross-validate by themselves.
TASKS_WITH_FOLDS = ("train", "classic_classifier", "search")
# Stages that a task makes its runs of; the schedule of each run is made by the task.
STAGES_OF_TASKS = {
    "ablation": ("head", "tune"),
    "search": ("head", "tune"),
    "transfer_curve": ("pretrain", "head", "whole", "scratch"),
}


def checked(values: ConfigDict | Mapping[str, Any]) -> Config:
    """The typed configuration of a config file's values.

    Raises:
        UserError: with one line for each field that is wrong.
    """
    nested = cast(Mapping[str, Any], values if isinstance(values, Mapping) else values.to_dict())
    config = _typed(nested, "config.")
    validate(config)
    return config


def read_config(file: Path) -> Config:
    """The configuration that a run wrote into its `config.json`, checked against today's fields.

    Raises:
        UserError: the file is missing or damaged, or names a field that this version does not have.
    """
    try:
        saved = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{file.parent}: is not the folder of a run; it has no {file.name}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file}: cannot be read ({error})") from error
    if not isinstance(saved, dict) or not isinstance(cast(dict[str, Any], saved).get("stages"), dict):
        raise UserError(f"{file}: is not the configuration of a run")
    values = cast(dict[str, Any], saved)
    config = _typed(values, f"{file}: ")
    try:
        validate(config)
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    return config


def validate(config: Config) -> None:
    """Checks every value against the schema, and the rules that relate fields to each other.

    Raises:
        UserError: with one line for each field that is wrong.
    """
    problems = list(_problems(config))
    if problems:
        raise UserError("\n".join(problems))


def _typed(values: Mapping[str, Any], where: str) -> Config:
    """A `Config` of nested values; every value has its field's type, missing fields have their default."""
    problems: list[str] = []
    stages: Any = values.get("stages", {})
    if not isinstance(stages, Mapping):
        raise UserError(f"{where}stages: got {stages!r}; expected a group of stages")
    stages = cast(Mapping[str, Any], stages)
    config = _group(Config, {key: values[key] for key in values if key not in ("stages", "extra")}, where, problems)
    extra: Any = values.get("extra", {})
    if not isinstance(extra, Mapping):
        problems.append(f"{where}extra: got {extra!r}; expected a group of fields")
    made = {name: _group(StageConfig, stages[name], f"{where}stages.{name}.", problems) for name in stages}
    if problems or config is None:
        raise UserError("\n".join(problems))
    try:  # tuples as a run's config.json gives them
        extra = json.loads(json.dumps(dict(cast(Mapping[str, Any], extra)), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{where}extra: allowed are texts, finite numbers, true, false, None, lists and groups of these ({error})"
        ) from error
    return dataclasses.replace(
        config, extra=extra, stages={name: stage for name, stage in made.items() if stage is not None}
    )


def _group(kind: type[Group], values: Any, where: str, problems: list[str]) -> Group | None:
    """One group of fields; None, and a line for each problem, where a value does not fit."""
    if not isinstance(values, Mapping):
        problems.append(f"{where.rstrip('.')}: got {values!r}; expected a group of fields")
        return None
    values = cast(Mapping[str, Any], values)
    known = {name: field for name, field in fields_of(kind) if "." not in name}
    before = len(problems)
    declared = dataclasses.fields(cast(Any, kind))
    groups = {field.name: field.default_factory for field in declared if field.name not in known}
    given: dict[str, Any] = {}
    for name in values:
        if name in known:
            given[name] = _value(known[name], values[name], f"{where}{name}", problems)
        elif name in groups and name not in ("stages", "extra"):
            given[name] = _group(cast(Any, groups[name]), values[name], f"{where}{name}.", problems)
        else:
            problems.append(f"{where}{name}: this version has no such field; {nearest_names(name, [*known, *groups])}")
    return kind(**given) if len(problems) == before else None


def _value(field: Field, found: Any, where: str, problems: list[str]) -> Any:
    """A value with its field's type: lists become tuples, and whole numbers become floats."""
    if found is None and field.optional:
        return None
    if field.kind is tuple and isinstance(found, tuple | list):
        listed = list(cast(Sequence[Any], found))
        if field.choices and all(isinstance(element, str) for element in listed):
            # absl gives `--config.benchmark.peers=keras,torch` as a tuple of one text.
            listed = [part for element in listed for part in element.split(",")]
        elements = [_element(field.element, element) for element in listed]
        if all(type(element) is field.element for element in elements):
            return tuple(elements)
    elif type(value := _element(field.kind, found)) is field.kind:
        return value
    allowed = KIND_NAMES[field.kind]
    if field.kind is tuple:
        allowed += f" of {KIND_NAMES[field.element].removeprefix('a ')}s"
    problems.append(f"{where}: got {found!r}; allowed is {allowed} ({field.meaning})")
    return None


def _element(kind: type, found: Any) -> Any:
    return float(found) if kind is float and type(found) is int and abs(found) < 1 << 53 else found


def _problems(config: Config) -> Iterator[str]:
    yield from _field_problems(config, FIELDS, "config")
    yield from _schedule_problems(config)
    for name in dict.fromkeys(config.schedule):
        if name in config.stages:
            yield from _field_problems(config.stages[name], STAGE_FIELDS, f"config.stages.{name}")
    yield from _augment_problems(config.augment)
    names = [name_of(metric) for metric in config.metrics if is_reference(metric)]
    for metric in config.metrics:
        if not is_reference(metric) or name_of(metric) in ("loss", "accuracy") or names.count(name_of(metric)) > 1:
            yield f"config.metrics: got {metric!r}; allowed is FILE.py:NAME with a name that no other metric has"
    yield from _decision_problems(config.decision)
    dataset = config.dataset
    if dataset.splits != SplitsConfig() and dataset.name.partition(":")[0] != "tfds":
        yield f"config.dataset.splits: are for TensorFlow Datasets (tfds:NAME); config.dataset.name is {dataset.name!r}"
    yield from _fold_problems(config)
    if config.task == "search" and config.evaluate != "best":
        yield f"config.evaluate: got {config.evaluate!r}; a search compares and tests best epochs: allowed is 'best'"
    values = dataset.value_range
    if values and not (len(values) == 2 and values[0] < values[1]):
        yield f"config.dataset.value_range: got {values!r}; allowed are two numbers, the first the smaller"


def _fold_problems(config: Config) -> Iterator[str]:
    dataset = config.dataset
    if dataset.folds == 1:
        yield "config.dataset.folds: got 1; allowed are 0 (no cross-validation) and 2 or more"
    if dataset.fold is not None and dataset.folds < 2:
        yield f"config.dataset.fold: got {dataset.fold}; it needs config.dataset.folds, 2 or more"
    elif dataset.fold is not None and dataset.fold >= dataset.folds:
        yield (
            f"config.dataset.fold: got {dataset.fold} with {dataset.folds} folds; allowed is less than "
            "config.dataset.folds (counted from 0)"
        )
    if dataset.folds > 1 and dataset.fold is None and config.task not in TASKS_WITH_FOLDS:
        yield (
            f"config.dataset.folds: the task {config.task} has no folds of its own; set config.dataset.fold, or choose "
            f"the task {' or '.join(TASKS_WITH_FOLDS)}"
        )


def _decision_problems(decision: DecisionConfig) -> Iterator[str]:
    cost = decision.cost
    if cost and not (len(cost) == 2 and min(cost) > 0):
        yield f"config.decision.cost: got {cost!r}; allowed are two numbers > 0, such as 1,5"
    rules = ("least_recall", "least_precision", "abstain_risk")
    found = [*(["cost"] if cost else []), *(name for name in rules if getattr(decision, name) is not None)]
    if len(found) > 1:
        yield f"config.decision: sets {' and '.join(found)}; allowed is one of cost, {', '.join(rules)}"
    if decision.positive is not None and found in ([], ["abstain_risk"]):
        yield (
            f"config.decision.positive: got {decision.positive!r} without a threshold for two classes; set cost, "
            "least_recall or least_precision, or leave it out"
        )


def _schedule_problems(config: Config) -> Iterator[str]:
    schedule, stages = config.schedule, config.stages
    if config.task == "train" and not schedule:
        yield "config.schedule: is empty; it lists the stages to run, such as ('head', 'block5')"
    for name in dict.fromkeys(schedule):
        if name not in stages:
            several = "; several are written as \"('head', 'tune')\"" if "," in name else ""
            yield f"config.schedule: names stage {name!r}, not in config.stages ({', '.join(stages)}){several}"
        elif schedule.count(name) > 1:
            yield f"config.schedule: names stage {name!r} twice; give the second one a name of its own"
    for name in STAGES_OF_TASKS.get(config.task, ()):
        if name not in stages:
            yield f"config.stages: the task {config.task} needs a stage {name!r}; it has {', '.join(stages) or 'none'}"
    monitors = {stages[name].monitor for name in schedule if name in stages}
    if config.evaluate == "best_stage" and len(monitors) > 1:
        yield (
            f"config.evaluate: best_stage compares stages that monitor {' and '.join(sorted(monitors))}; set one "
            "monitor in all of them, or evaluate=best"
        )


def _augment_problems(augment: AugmentConfig) -> Iterator[str]:
    if augment.preset == "keras_layers":
        for name, most in LAYERS_MAXIMUM.items():
            if (found := getattr(augment, name)) > most:
                yield f"config.augment.{name}: got {found!r}; allowed is at most {most:g} with preset keras_layers"
    if augment.crop_scale and not (len(augment.crop_scale) == 2 and 0 < augment.crop_scale[0] <= augment.crop_scale[1]):
        yield f"config.augment.crop_scale: got {augment.crop_scale!r}; allowed are two shares, 0 < smallest <= largest"


def _field_problems(config: Config | StageConfig, fields: Mapping[str, Field], where: str) -> Iterator[str]:
    for path, field in fields.items():
        value: Any = config
        for part in path.split("."):
            value = getattr(value, part)
        elements: Sequence[Any] = cast(Sequence[Any], value) if isinstance(value, tuple) else (value,)
        for element in elements:
            allowed = _allowed(field, element)
            if allowed:
                yield f"{where}.{path}: got {value!r}; allowed {allowed}"
                break


def _allowed(field: Field, value: Any) -> str:
    """The allowed values, in words, if a value or an element is not allowed; otherwise empty."""
    bounds = field.setting
    if value is None:
        return ""
    if field.choices:
        return (
            ""
            if value in field.choices or (bounds.own and is_reference(value))
            else f"are {', '.join(map(str, field.choices))}"
        )
    if isinstance(value, float) and not math.isfinite(value):
        return f"is a finite number ({field.meaning})"
    if bounds.minimum is not None and not value >= bounds.minimum:
        return f"is {bounds.minimum:g} or more ({field.meaning})"
    if bounds.below is not None and not value < bounds.below:
        return f"is less than {bounds.below:g} ({field.meaning})"
    if bounds.maximum is not None and not value <= bounds.maximum:
        return f"is at most {bounds.maximum:.10g} ({field.meaning})"
    return ""

"""Fields by their dotted paths: what the schema states about each, and the values of a configuration."""

import dataclasses
from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from vision_transfer.config.schema import Config, StageConfig
from vision_transfer.config.setting import SETTING, Setting

T = TypeVar("T")
# Fields that say where, how often or how much is written: they do not change a run's numbers, so its digest omits them.
# The range of values and the splits are part of the data's fingerprint, which is in the digest.
NOT_IN_DIGEST = (
    "dataset.root",
    "dataset.value_range",
    "dataset.splits",
    "dataset.decode",
    "model.weights_path",
    "init_from",
    "features.budget_gb",
    "checkpoint",
    "log",
    "decision",
    "benchmark",
    "study",
    "ablation",
    "slurm",
    "probe",
    "search",
    "check",
)
# Groups of fields that are not named after the task that reads them.
TASKS_OF_GROUPS = {"study": ("transfer_curve", "ablation")}


@dataclasses.dataclass(frozen=True)
class Field:
    """One value of the configuration.

    Attributes:
        default: the value where none is set.
        kind: `int`, `float`, `bool`, `str`, or `tuple`.
        element: type of a tuple's elements; otherwise equal to `kind`.
        optional: whether None is allowed.
        choices: the allowed values, if they can be listed.
        setting: meaning and bounds.
    """

    default: Any
    kind: type
    element: type
    optional: bool
    choices: tuple[Any, ...]
    setting: Setting

    @property
    def meaning(self) -> str:
        """One sentence for the reader."""
        return self.setting.meaning


def fields_of(group: type, prefix: str = "") -> Iterator[tuple[str, Field]]:
    """All fields of a group of the schema with their dotted paths, without those of stages."""
    hints = get_type_hints(group)
    for declared in dataclasses.fields(cast(Any, group)):
        path, hint = f"{prefix}{declared.name}", hints[declared.name]
        if SETTING in declared.metadata:
            yield path, _field(declared, hint)
        elif isinstance(hint, type) and dataclasses.is_dataclass(hint):
            yield from fields_of(hint, f"{path}.")


def _field(declared: "dataclasses.Field[Any]", hint: Any) -> Field:
    optional = get_origin(hint) in (Union, UnionType)
    kind = next(kind for kind in get_args(hint) if kind is not type(None)) if optional else hint
    element = get_args(kind)[0] if get_origin(kind) is tuple else kind
    choices = get_args(element) if get_origin(element) is Literal else ()
    element_type = cast(type, type(choices[0]) if choices else element)
    is_tuple = get_origin(kind) is tuple
    return Field(
        declared.default,
        tuple if is_tuple else element_type,
        element_type,
        optional,
        choices,
        declared.metadata[SETTING],
    )


def field_types(field: Field) -> str:
    """The values that a field takes, in words: its choices, or a type with bounds."""
    bounds = field.setting
    text = " | ".join(map(str, field.choices)) or field.element.__name__
    limits = [
        f"{sign} {bound:g}"
        for sign, bound in (("≥", bounds.minimum), ("<", bounds.below), ("≤", bounds.maximum))
        if bound is not None
    ]
    text += f" {' and '.join(limits)}" if limits else ""
    return f"list of {text}" if field.kind is tuple else text


FIELDS: Mapping[str, Field] = dict(fields_of(Config))
STAGE_FIELDS: Mapping[str, Field] = dict(fields_of(StageConfig))


def field_at(path: str) -> Field | None:
    """The field at a dotted path: `batch_size`, `stages.head.optimizer.lr`."""
    group, _, rest = path.partition(".")
    return STAGE_FIELDS.get(rest.partition(".")[2]) if group == "stages" else FIELDS.get(path)


def meaning_of(path: str) -> str:
    """The meaning of the field at a dotted path."""
    field = field_at(path)
    return field.meaning if field else "of this config only"


def value_at(config: Any, path: str) -> Any:
    """The value of the field at a dotted path that leads into no stage."""
    for name in path.split("."):
        config = getattr(config, name)
    return config


def replaced_fields(config: Config) -> dict[str, str]:
    """The fields that the config's task does not read, each with the field that the task reads instead."""
    found: dict[str, str] = {}
    for path, field in FIELDS.items():
        group = path.partition(".")[0]
        if config.task in TASKS_OF_GROUPS.get(group, (group,)) and value_at(config, path):
            found |= dict.fromkeys(field.setting.instead_of, path)
    return found


def with_value(config: T, path: str, value: Any) -> T:
    """The configuration with another value of the field at a dotted path that leads into no stage."""
    name, _, rest = path.partition(".")
    changed: Any = with_value(getattr(config, name), rest, value) if rest else value
    return dataclasses.replace(cast(Any, config), **{name: changed})


def to_dict(config: Config) -> dict[str, Any]:
    """Nested dictionaries of the values, as `config.json` holds them."""
    return dataclasses.asdict(config)


def flatten(config: Config | Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by dotted path, sorted; tuples become lists, as in JSON."""
    values = to_dict(config) if isinstance(config, Config) else config
    flat: dict[str, Any] = {}
    for key in sorted(values):
        value = values[key]
        if isinstance(value, Mapping):
            flat |= flatten(cast(Mapping[str, Any], value), f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = _plain(value)
    return flat


def digested(config: Config) -> dict[str, Any]:
    """The part of a configuration that determines a run's numbers, as plain JSON values."""
    return {
        path: value
        for path, value in flatten(config).items()
        if not any(path == omitted or path.startswith(f"{omitted}.") for omitted in NOT_IN_DIGEST)
    }


def _plain(value: Any) -> Any:
    return list(cast(tuple[Any, ...], value)) if isinstance(value, tuple) else value

"""Makes the `ConfigDict` of a config file: the defaults of the schema, which the file and the flags change."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from ml_collections import config_dict  # pyright: ignore[reportMissingTypeStubs]

from vision_transfer.config.fields import FIELDS, STAGE_FIELDS, Field

if TYPE_CHECKING:

    class ConfigDict:
        """A type of its own for type checkers, so that no config that is not checked passes for a `Config`."""

        def __init__(self, values: Mapping[str, Any] | None = None) -> None: ...
        def __contains__(self, name: str) -> bool: ...
        def __getitem__(self, name: str) -> Any: ...
        def __setitem__(self, name: str, value: Any) -> None: ...
        def __getattr__(self, name: str) -> Any: ...
        def __setattr__(self, name: str, value: Any) -> None: ...
        def __iter__(self) -> Iterator[str]: ...
else:
    from ml_collections import ConfigDict


def default_config() -> ConfigDict:
    """All fields at their defaults, no stages; locked, so that an unknown field is an error where it is set."""
    config = _tree(FIELDS)
    config.extra = ConfigDict()
    config.stages = ConfigDict()
    return config.lock()


def stage(**values: Any) -> ConfigDict:
    """A stage at its defaults, changed by `values`; nested values as dictionaries: `optimizer={'lr': 1e-5}`."""
    config = _tree(STAGE_FIELDS).lock()
    config.update(values)
    return config


def with_stages(config: ConfigDict, **stages: ConfigDict) -> ConfigDict:
    """Sets the stages and, by their order here, the schedule."""
    with config.unlocked():
        config.stages = ConfigDict(stages)
    config.schedule = tuple(stages)
    return config


def with_extra(config: ConfigDict, **fields: Any) -> ConfigDict:
    """Sets fields of the user's own, `config.extra`, which flags can change and the run records."""
    with config.unlocked():
        config.extra = ConfigDict(fields)
    return config


def clear(config: ConfigDict, paths: Sequence[str]) -> None:
    """Sets optional fields, at dotted paths, to None."""
    for path in paths:
        *parents, name = path.split(".")
        node: Any = config
        for parent in parents:
            node = node[parent]
        with node.ignore_type():
            node[name] = None


def _tree(fields: Mapping[str, Field]) -> ConfigDict:
    config = ConfigDict()
    for path, field in fields.items():
        *parents, name = path.split(".")
        node: Any = config
        for parent in parents:
            if parent not in node:
                node[parent] = ConfigDict()
            node = node[parent]
        # A plain None could not be overridden from the command line.
        placeholder = cast(Any, config_dict).placeholder
        node[name] = placeholder(field.kind) if field.default is None else field.default
    return config

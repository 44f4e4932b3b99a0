"""Reading a run's `config.json` back into a configuration."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vision_transfer.config import Config, default_config, flatten, stage, validate, with_stages
from vision_transfer.errors import UserError


def read_config(file: Path) -> Config:
    """The configuration that a run wrote, checked against today's fields.

    Args:
        file: a run's `config.json`.

    Raises:
        UserError: the file is missing or damaged, or names a field that this version does not have.
    """
    try:
        saved = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{file.parent}: is not the folder of a run; it has no {file.name}") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read ({error})") from error
    if not isinstance(saved, dict) or not isinstance(saved.get("stages"), dict):
        raise UserError(f"{file}: is not a configuration as a run writes it")
    schedule = saved.get("schedule")
    names = schedule if isinstance(schedule, list) else []
    stages = {}
    for name in names:
        stages[name] = stage()
        _fill(stages[name], saved["stages"].get(name), f"{file}: stages.{name}")
    config = with_stages(default_config(), **stages)
    _fill(config, {key: value for key, value in saved.items() if key not in ("stages", "schedule")}, str(file))
    validate(config)
    return config


def _fill(config: Config, saved: Any, where: str) -> None:
    """Sets the fields of `config` to those of a nested JSON object."""
    if not isinstance(saved, Mapping):
        raise UserError(f"{where}: is missing or no JSON object")
    known = flatten(config)
    for path, value in _leaves(saved):
        if path not in known:
            raise UserError(f"{where}: has a field {path!r}, which this version does not know")
        *groups, name = path.split(".")
        node = config
        for group in groups:
            node = node[group]
        try:
            node[name] = tuple(value) if isinstance(value, list) else value
        except TypeError as error:
            raise UserError(f"{where}: {path} is {value!r}, of the wrong type ({error})") from error


def _leaves(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    leaves = []
    for key, value in values.items():
        leaves += _leaves(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(f"{prefix}{key}", value)]
    return leaves

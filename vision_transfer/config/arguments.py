"""The `key=value,…` behind a config's path: which recipe of the file is meant."""

import ast
from typing import Any

from ml_collections import ConfigDict

from vision_transfer.config import Config
from vision_transfer.errors import UserError, nearest_names


def parse_recipe(argument: str | None, **defaults: Any) -> Config:
    """The `key=value,…` behind a config's path as values, typed by `defaults`; a bare key of a switch means True.

    Raises:
        UserError: an unknown key, or a value of another type than the default's.
    """
    values = dict(defaults)
    for item in filter(None, (argument or "").split(",")):
        key, equals, text = item.partition("=")
        if key not in defaults:
            raise UserError(f"recipe {argument!r}: unknown key {key!r}; {nearest_names(key, list(defaults))}")
        kind, what = type(defaults[key]), f"recipe {argument!r}: {key}"
        if not equals and kind is not bool:
            raise UserError(f"{what}: has no value; write {key}=VALUE, of type {kind.__name__}")
        values[key] = _literal(text, kind, what) if equals else True
    return ConfigDict(values)


def check_choices(argument: str | None, recipe: Config, /, **choices: tuple[Any, ...]) -> None:
    """Checks values of a recipe against those that its file knows.

    Raises:
        UserError: a value that is not among them.
    """
    for key, allowed in choices.items():
        if recipe[key] not in allowed:
            raise UserError(
                f"recipe {argument!r}: {key}: got {recipe[key]!r}; allowed are {', '.join(map(str, allowed))}"
            )


def check_needs(argument: str | None, key: str, met: bool, needed: str) -> None:
    """Refuses a key that would change nothing without others.

    Raises:
        UserError: the recipe has `key`, but what it needs is not `met`.
    """
    if not met and key in [item.partition("=")[0] for item in (argument or "").split(",")]:
        raise UserError(f"recipe {argument!r}: {key} changes nothing here; it needs {needed}")


def _literal(text: str, kind: type, what: str) -> Any:
    if kind is str:
        return text
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError) as error:
        raise UserError(f"{what}: got {text!r}; allowed is a value of type {kind.__name__}") from error
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind:
        raise UserError(f"{what}: got {text!r}; allowed is a value of type {kind.__name__}")
    return value

"""The recipe of a config file: the `key=value,…` after its path."""

import ast
from typing import Any

from vision_transfer.config.config_dict import ConfigDict
from vision_transfer.errors import UserError, nearest_names


def parse_recipe(argument: str | None, **defaults: Any) -> ConfigDict:
    """Parses `key=value,…` to values with the keys and types of `defaults`; a boolean key without a value means True.

    Raises:
        UserError: a key is unknown, or a value does not have the type of its default.
    """
    values = dict(defaults)
    for item in filter(None, (argument or "").split(",")):
        key, equals, text = item.partition("=")
        if key not in defaults:
            raise UserError(f"recipe {argument!r}: unknown key {key!r}; {nearest_names(key, list(defaults))}")
        default: object = defaults[key]
        kind = type(default)
        what = f"recipe {argument!r}: {key}"
        if not equals and kind is not bool:
            raise UserError(f"{what} has no value; write {key}=VALUE, of type {kind.__name__}")
        values[key] = _literal(text, kind, what) if equals else True
    return ConfigDict(values)


def check_choices(argument: str | None, recipe: ConfigDict, /, **choices: tuple[Any, ...]) -> None:
    """Raises a UserError if a value of the recipe is not among its `choices`."""
    for key, allowed in choices.items():
        if recipe[key] not in allowed:
            raise UserError(
                f"recipe {argument!r}: {key}: got {recipe[key]!r}; allowed are {', '.join(map(str, allowed))}"
            )


def check_needs(argument: str | None, key: str, met: bool, needed: str) -> None:
    """Raises a UserError if the recipe has `key` but its condition, described by `needed`, is not `met`."""
    if not met and key in [item.partition("=")[0] for item in (argument or "").split(",")]:
        raise UserError(f"recipe {argument!r}: {key} has no effect here; it needs {needed}")


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

"""The `key=value,…` behind a config's path: which recipe of the file is meant."""

import ast
from typing import Any

from ml_collections import ConfigDict

from vision_transfer.config import Config
from vision_transfer.errors import UserError
from vision_transfer.nearest import nearest_names


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

"""Messages about mistakes in a command line.

The flag libraries stop at the first mistake with texts of their own, some from deep inside. So when they fail, the
config's file is run once more here, and every `--config.FIELD=VALUE` is checked against the fields that it has.
"""

import re
from collections.abc import Iterator, Sequence

from absl import flags

from vision_transfer.config import ConfigDict, field_at, flatten
from vision_transfer.config.checks import KIND_NAMES
from vision_transfer.config.files import config_file, load_config, one_line
from vision_transfer.errors import UserError, nearest_names

TRUTHS = ("true", "t", "1", "false", "f", "0")


def explain(error: Exception, arguments: Sequence[str], flag_names: Sequence[str]) -> str:
    """One line for each mistake in the arguments, without the program, for which the flag libraries raised `error`."""
    if isinstance(error, flags.UnrecognizedFlagError) and not error.flagname.startswith("config."):
        return f"unknown flag --{error.flagname}; {nearest_names(error.flagname, flag_names)} (--help lists all)"
    if isinstance(error, flags.IllegalFlagValueError) and not str(error).startswith("flag --config"):
        return _illegal_value(error)
    if missing := re.match(r"Missing value for flag (--?\w+)", str(error)):
        return f"{missing[1]}: is given without a value; write {missing[1]}=VALUE (see --help)"
    try:
        config = load_config(config_argument(arguments))
    except UserError as wrong:
        return str(wrong)
    return "\n".join(override_mistakes(config, arguments)) or one_line(error)


def _illegal_value(error: flags.IllegalFlagValueError) -> str:
    """The message for a wrong value of a flag other than `--config`: a boolean, or one with a list of choices."""
    text = str(error)
    found = re.match(r"flag --(\w+)=(.*?): ", text)
    choices = re.search(r"<(.*)>", text)
    if found is None:
        return text
    allowed = ", ".join(choices[1].split("|")) if choices else "true or false"
    return f"--{found[1]}: got {found[2]!r}; allowed is {allowed} (see --help)"


def override_mistakes(config: ConfigDict, arguments: Sequence[str]) -> Iterator[str]:
    """A line for each `--config.FIELD=VALUE` with an unknown field or a value of the wrong type."""
    known = flatten(config.to_dict())
    for argument in arguments:
        field, equals, text = argument.lstrip("-").partition("=")
        if not argument.startswith("-") or not field.startswith("config."):
            continue
        path = field.removeprefix("config.")
        inside = [name for name in known if name.startswith(f"{path}.")]
        if inside:
            yield f"--{field}: is a group of fields; set one of them: {', '.join(f'config.{name}' for name in inside)}"
        elif path not in known:
            yield f"--{field}: there is no such field; {_nearest_fields(path, list(known))}"
        elif equals and (known_field := field_at(path)) and not _reads_as(known_field.kind, text):
            yield f"--{field}: got {text!r}; allowed is {KIND_NAMES[known_field.kind]} ({known_field.meaning})"


def _nearest_fields(path: str, known: Sequence[str]) -> str:
    """The fields with a similar path or, if there is none, those of the deepest group that exists."""
    parts = path.split(".")
    for depth in range(len(parts) - 1, 0, -1):
        group = ".".join(parts[:depth]) + "."
        siblings = [name.removeprefix(group) for name in known if name.startswith(group)]
        if siblings:
            return nearest_names(".".join(parts[depth:]), siblings) + f" (in config.{group.removesuffix('.')})"
    groups = sorted({name.partition(".")[0] for name in known})
    # a list of all fields would be a page
    return nearest_names(path, [*known, *groups], f"the groups and fields at the top are {', '.join(groups)}")


def _reads_as(kind: type, text: str) -> bool:
    if kind is bool:
        return text.lower() in TRUTHS
    if kind not in (int, float):
        return True
    try:
        kind(text)
    except ValueError:
        return False
    return True


def without_cleared(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments without each `--config.FIELD=None` of an optional field, and the fields that end as None.

    The flag libraries read a value of the field's type only. As for every flag, the last of several counts.
    """
    kept: list[str] = []
    cleared: dict[str, None] = {}
    for argument in arguments:
        name, _, value = argument.lstrip("-").partition("=")
        path = name.removeprefix("config.")
        found = field_at(path) if argument.startswith("-") and path != name else None
        if found is not None and found.optional and value == "None":
            cleared[path] = None
            continue
        cleared.pop(path, None)
        kept.append(argument)
    return kept, list(cleared)


def with_files(arguments: Sequence[str]) -> list[str]:
    """The arguments with the file of each `--config=NAME`.

    Raises:
        UserError: no config has this name.
    """
    found = list(arguments)
    for position, argument in enumerate(arguments):
        name, equals, value = argument.lstrip("-").partition("=")
        if not argument.startswith("-") or name != "config":
            continue
        if equals:
            found[position] = f"--config={_with_file(value)}"
        elif position + 1 < len(found):
            found[position + 1] = _with_file(found[position + 1])
    return found


def _with_file(argument: str) -> str:
    name, colon, recipe = argument.partition(":")
    return f"{config_file(name)}{colon}{recipe}"


def config_argument(arguments: Sequence[str]) -> str | None:
    """The value of the last `--config=VALUE` or `--config VALUE`."""
    found = None
    for position, argument in enumerate(arguments):
        name, equals, value = argument.lstrip("-").partition("=")
        if argument.startswith("-") and name == "config":
            following = arguments[position + 1 : position + 2]
            found = value if equals else (following[0] if following else None)
    return found

"""Messages about mistakes in a command line.

The flag libraries stop at the first mistake with texts of their own, some from deep inside. So when they fail, the
config's file is run once more here, and every `--config.FIELD=VALUE` is checked against the fields that it has.
"""

import re
import runpy
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

from absl import flags

from vision_transfer.config import ConfigDict, field_at, flatten
from vision_transfer.config.checks import KIND_NAMES
from vision_transfer.config.files import config_file, config_names
from vision_transfer.errors import UserError, nearest_names

EXAMPLE = "--config=finetune"
QUOTE = "'"
TRUTHS = ("true", "t", "1", "false", "f", "0")


def explain(error: Exception, arguments: Sequence[str], flag_names: Sequence[str]) -> str:
    """One line for each mistake in the arguments.

    Args:
        error: what the flag libraries raised.
        arguments: the command line without the program.
        flag_names: of the flags that exist.
    """
    if isinstance(error, flags.UnrecognizedFlagError) and not error.flagname.startswith("config."):
        return f"unknown flag --{error.flagname}; {nearest_names(error.flagname, flag_names)} (--help lists all)"
    if isinstance(error, flags.IllegalFlagValueError) and not str(error).startswith("flag --config"):
        return _illegal_value(error)
    try:
        config = load_config(config_argument(arguments))
    except UserError as wrong:
        return str(wrong)
    return "\n".join(_override_mistakes(config, arguments)) or _one_line(error)


def load_config(argument: str | None) -> ConfigDict:
    """The configuration of a file, given as `FILE` or `FILE:KEY=VALUE,...`; a name stands for a file of the package.

    Raises:
        UserError: there is no such name or file, it cannot be run, or it gives no configuration.
    """
    if argument is None:
        raise UserError(f"--config is missing; give a name or a file, such as {EXAMPLE} (see --help)")
    file, colon, recipe = argument.partition(":")
    file = config_file(file)
    shown = f"--config={argument}"
    if Path(file).is_dir():
        raise UserError(f"{shown}: {file} is a folder. {_names_to_choose_from()}")
    try:
        get_config = runpy.run_path(file).get("get_config")
        if not callable(get_config):
            example = config_file("finetune")
            raise UserError(f"{shown}: {file} defines no function get_config(); see {example} for an example")
        config = get_config(recipe) if colon else get_config()
    except UserError:
        raise
    except OSError as error:
        reason = f"{error.filename or file}: {error.strerror or error}"
        raise UserError(f"{shown}: {reason}. {_names_to_choose_from()}") from error
    except Exception as error:  # a config's file is code and can raise anything
        raise UserError(f"{shown}: {_where(error, file)}: {type(error).__name__}: {_one_line(error)}") from error
    if not isinstance(config, ConfigDict):
        got = type(config).__name__
        raise UserError(f"{shown}: get_config() returned {got}, expected a ConfigDict, as default_config() makes it")
    return config


def _illegal_value(error: flags.IllegalFlagValueError) -> str:
    """The message for a wrong value of a flag other than `--config`: a boolean, or one with a list of choices."""
    text = str(error)
    found = re.match(r"flag --(\w+)=(.*?): ", text)
    choices = re.search(r"<(.*)>", text)
    if found is None:
        return text
    allowed = ", ".join(choices[1].split("|")) if choices else "true or false"
    return f"--{found[1]}: got {found[2]!r}; allowed is {allowed} (see --help)"


def _override_mistakes(config: ConfigDict, arguments: Sequence[str]) -> Iterator[str]:
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
    names = sorted({*known, *(name.partition(".")[0] for name in known)})
    return nearest_names(path, names)


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


def _where(error: Exception, file: str) -> str:
    """The file and, if the mistake is in it or came through it, the line."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f"{file}, line {lines[-1]}" if lines else file


def _one_line(error: Exception) -> str:
    """The text of an error without what libraries add to it: quotes around it, a dump of the fields, a hint below."""
    text = error.msg if isinstance(error, SyntaxError) else str(error.args[0] if error.args else error)
    lines = [line for line in text.replace("\\n", "\n").splitlines() if line.strip()] or [type(error).__name__]
    first = lines[0].partition(' Other fields present: "')[0].removeprefix("'")
    return f"{first} {lines[-1].rstrip(QUOTE)}" if lines[-1].startswith("Did you mean") else first


def _names_to_choose_from() -> str:
    return f"Give the path of a config's file, or one of the names {', '.join(config_names())}, as in {EXAMPLE}"

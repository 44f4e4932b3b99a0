"""Config files: found by path or, if they come with the package, by name, and run to get the configuration."""

import runpy
import traceback
from pathlib import Path

from vision_transfer.config.config_dict import ConfigDict
from vision_transfer.errors import UserError, nearest_names

PACKAGE = Path(__file__).parents[1]
# In an installed wheel, and in a checkout.
FOLDERS = (PACKAGE / "configs", PACKAGE.parent / "configs")
EXAMPLE = "--config=finetune"
_QUOTE = "'"


def config_names() -> list[str]:
    """The names of the config files that come with the package."""
    return sorted(file.stem for folder in FOLDERS for file in folder.glob("*.py"))


def config_file(given: str) -> str:
    """The path of a config's file, given as a path, which is returned as it is, or as a name, such as `finetune`.

    Raises:
        UserError: no config has this name.
    """
    if given.endswith(".py") or len(Path(given).parts) != 1 or given in (".", ".."):
        return given
    found = [str(file) for folder in FOLDERS if (file := folder / f"{given}.py").is_file()]
    if not found:
        names = config_names()
        near = nearest_names(given, names)
        known = "" if near.startswith("known") else f" (known are {', '.join(names)})"
        own = f"; your own file is --config={given}.py" if Path(f"{given}.py").is_file() else ""
        raise UserError(f"--config={given}: no config has this name; {near}{known}{own}")
    return found[0]


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
    except Exception as error:  # a config's file is code and can raise anything
        if isinstance(error, OSError) and _line(error, file) is None:  # of reading it, not of what it does
            raise UserError(f"{shown}: {file}: {error.strerror}. {_names_to_choose_from()}") from error
        raise UserError(f"{shown}: {_where(error, file)}: {type(error).__name__}: {one_line(error)}") from error
    if not isinstance(config, ConfigDict):
        got = type(config).__name__
        raise UserError(f"{shown}: get_config() returned {got}, expected a ConfigDict, as default_config() makes it")
    return config


def _where(error: Exception, file: str) -> str:
    """The file and, if the mistake is in it or came through it, the line."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}"
    line = _line(error, file)
    return file if line is None else f"{file}, line {line}"


def _line(error: Exception, file: str) -> int | None:
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return lines[-1] if lines else None


def one_line(error: Exception) -> str:
    """The text of an error without what libraries add to it: quotes around it, a dump of the fields, a hint below."""
    if isinstance(error, SyntaxError):
        text = error.msg
    else:
        # an OSError's first argument is its number
        text = str(error if isinstance(error, OSError) or not error.args else error.args[0])
    lines = [line for line in text.replace("\\n", "\n").splitlines() if line.strip()] or [type(error).__name__]
    first = lines[0].partition(' Other fields present: "')[0].removeprefix("'")
    return f"{first} {lines[-1].rstrip(_QUOTE)}" if lines[-1].startswith("Did you mean") else first


def _names_to_choose_from() -> str:
    return f"Give the path of a config's file, or one of the names {', '.join(config_names())}, as in {EXAMPLE}"

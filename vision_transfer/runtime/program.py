"""This program as a user types it: its name in messages, the commands that they advise, and how to install an extra."""

import shlex
import sys
from pathlib import Path

COMMAND = "vision-transfer"
MODULE = "python -m vision_transfer"
DISTRIBUTION = "vision_transfer"


def program() -> str:
    """The words before the flags: `vision-transfer`, `python -m vision_transfer` or `python launch.py`.

    A program of the user's own, a notebook or a worker of a sweep advises what works wherever the package is imported.
    """
    script = Path(sys.argv[0])
    if script.stem == COMMAND:
        return COMMAND
    return shlex.join(["python", str(script)]) if script.name == "launch.py" else MODULE


def program_name() -> str:
    """The name before an error message: `vision-transfer`, `vision_transfer` or `launch.py`."""
    return "launch.py" if Path(sys.argv[0]).name == "launch.py" else program().split()[-1]


def install_extra(extra: str) -> str:
    """The command that installs what an extra of this package consists of.

    It names those packages, because this one is on no registry, and the checkout that it came from may be elsewhere.
    """
    from importlib import metadata

    try:
        declared = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:  # imported from a checkout that is not installed
        declared = []
    conditions = {text.partition(";")[0].strip(): text.partition(";")[2].replace("'", '"') for text in declared}
    wanted = [requirement for requirement, condition in conditions.items() if f'extra == "{extra}"' in condition]
    return shlex.join(["pip", "install", *(wanted or [f".[{extra}]"])])

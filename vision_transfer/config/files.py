"""The config files that come with the package, found by name: `finetune` is the `configs/finetune.py` of a checkout."""

from pathlib import Path

from vision_transfer.errors import UserError, nearest_names

PACKAGE = Path(__file__).parents[1]
# In an installed wheel, and in a checkout.
FOLDERS = (PACKAGE / "configs", PACKAGE.parent / "configs")


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

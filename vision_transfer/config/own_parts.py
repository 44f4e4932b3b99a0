"""Parts of the user's own, by reference: `FILE.py:NAME` or `MODULE:NAME` in a config, `FILE.py:NAME@DIGEST` in a run.

A part is a function in one Python file: a backbone, a head, an optimizer, an augmentation, a loss or a metric. The file
is read where a command takes its config, and a copy of it, named by its digest, is kept with the run; from then on only
the digest counts. A file is run only in a process that its user told to (`--trust`), never because a run names it.
"""

import hashlib
import importlib.util
import linecache
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from vision_transfer.config.fields import FIELDS, STAGE_FIELDS, field_at, flatten, value_at, with_value
from vision_transfer.config.references import REFERENCE, is_reference, name_of
from vision_transfer.config.schema import Config
from vision_transfer.errors import UserError

# Set to 1 by `--trust`; an environment variable, so that the workers of a sweep have it too.
TRUST_VARIABLE = "VISION_TRANSFER_TRUST"
FOLDER = "parts"
DIGEST_LENGTH = 16


@dataclass(frozen=True)
class Source:
    """The text of a file of parts, where it was read, and the name of its copies."""

    text: str
    path: Path
    file_name: str


# By the digest of their text, so that no entry ever changes: a memory of files that were read, not a state. It is not
# passed, since configs and networks name parts by their text, also where JAX traces the function that needs one.
_SOURCES: dict[str, Source] = {}


def trust() -> None:
    """Allows this process, and those that it starts, to run the parts that configs and runs name."""
    os.environ[TRUST_VARIABLE] = "1"


def with_sources(config: Config, run: Path | None = None, cached: Path | None = None) -> Config:
    """The config with every reference tied to the digest of its file, whose text this process then knows.

    Args:
        config: with references as the user wrote them, or as a run recorded them.
        run: folder of a run's copies, also of files that are gone from where the user gave them.
        cached: folder of the cache's copies.

    Raises:
        UserError: a file or module does not exist, or no copy of it has the recorded digest.
    """
    folders = [folder for folder in (run, cached) if folder is not None]

    def all_resolved(value: Any, where: str) -> Any:
        if isinstance(value, tuple):
            return tuple(all_resolved(element, where) for element in cast(tuple[Any, ...], value))
        return _resolved(value, where, run, folders) if is_reference(value) else value

    for path, field in FIELDS.items():
        if field.setting.own:
            config = with_value(config, path, all_resolved(value_at(config, path), f"config.{path}"))
    stages = dict(config.stages)
    for name, stage in stages.items():
        for path, field in STAGE_FIELDS.items():
            if field.setting.own:
                stage = with_value(stage, path, all_resolved(value_at(stage, path), f"config.stages.{name}.{path}"))
        stages[name] = stage
    return replace(config, stages=stages)


def references(config: Config) -> list[str]:
    """All references of a config."""
    found: list[str] = []
    for path, value in flatten(config).items():
        field = field_at(path)
        if field is not None and field.setting.own:
            values = cast(list[Any], value) if isinstance(value, list) else [value]
            found += [text for text in values if is_reference(text)]
    return found


def keep_sources(config: Config, folder: Path) -> None:
    """Writes a copy of each file of parts into a folder; makes the folder only if there are any."""
    for reference in references(config):
        source = _SOURCES[_digest(reference)]
        folder.mkdir(parents=True, exist_ok=True)
        file, content = folder / source.file_name, source.text.encode()
        if file.exists() and file.read_bytes() == content:
            continue
        # other processes may read it, and it may be the only copy
        with tempfile.NamedTemporaryFile(dir=folder, prefix=f".{source.file_name}.", delete=False) as temporary:
            temporary.write(content)
        Path(temporary.name).replace(file)


def part(reference: str) -> Callable[..., Any]:
    """The function that a reference names.

    Raises:
        UserError: the user did not say `--trust`, the file cannot be run, or it has no such function.
    """
    source, name = _SOURCES[_digest(reference)], name_of(reference)
    if os.environ.get(TRUST_VARIABLE) != "1":
        raise UserError(
            f"{reference}: this would run the code in {source.path} (function {name}). Read it, and add --trust if you "
            "trust it"
        )
    found = getattr(_module(_digest(reference)), name, None)
    if not callable(found):
        raise UserError(f"{reference}: {source.path} has no function {name}")
    return found


def call_part(reference: str, *arguments: Any) -> Any:
    """Calls the function that a reference names, and returns its value; an error in it is a message.

    Raises:
        UserError: as `part`, or the function fails.
    """
    function = part(reference)
    try:
        return function(*arguments)
    except Exception as error:  # code of the user's, which can raise anything
        raise _failed(reference, error) from error


@cache
def _module(digest: str) -> ModuleType:
    source, name = _SOURCES[digest], f"own_parts_{digest}"
    module = ModuleType(name)
    module.__file__ = str(source.path)
    # For tracebacks, and for dataclasses, which look their module up.
    linecache.cache[name] = (len(source.text), None, source.text.splitlines(keepends=True), name)
    sys.modules[name] = module
    try:
        exec(compile(source.text, name, "exec"), module.__dict__)
    except Exception as error:  # code of the user's, which can raise anything
        raise _failed(str(source.path), error) from error
    return module


def _failed(where: str, error: Exception) -> UserError:
    frames = traceback.walk_tb(error.__traceback__)
    lines = [line for frame, line in frames if frame.f_code.co_filename.startswith("own_parts_")]
    line = f", line {lines[-1]}" if lines else ""
    return UserError(f"{where}{line}: {type(error).__name__}: {error}")


def with_digest(reference: str) -> str:
    """The reference with the digest of its file, which is read now if the reference has none."""
    return reference if _given_digest(reference) in _SOURCES else _resolved(reference, reference, None, [])


def _digest(reference: str) -> str:
    return _given_digest(with_digest(reference))


def _given_digest(reference: str) -> str:
    return reference.rpartition("@")[2]


def _resolved(value: str, where: str, run: Path | None, folders: Sequence[Path]) -> str:
    parts = REFERENCE.fullmatch(value)
    assert parts is not None, value
    given, name, digest = parts["source"], parts["name"], parts["digest"]
    if digest is None:
        file = _find(given, where, run)
        digest = _read(file)
        return f"{file.stem.removesuffix(f'-{digest}')}.py:{name}@{digest}"
    if digest not in _SOURCES:
        for folder in folders:
            for file in folder.glob(f"*-{digest}.py"):
                if _read(file) == digest:
                    return value
        place = f"not in {' or '.join(map(str, folders))}, or was changed there" if folders else "not here"
        raise UserError(f"{where}: {value}: its file is {place}; bring back {Path(given).stem}-{digest}.py from a copy")
    return value


def _find(given: str, where: str, run: Path | None) -> Path:
    path = Path(os.path.expanduser(given))  # noqa: PTH111 (Path.expanduser raises an error for an unknown user)
    if path.suffix == ".py":
        copies = [] if run is None else list(run.glob(f"{path.stem}-{'[0-9a-f]' * DIGEST_LENGTH}.py"))
        if not path.is_file() and len(copies) == 1:
            return copies[0]
        if not path.is_file():
            raise UserError(f"{where}: there is no file {given}")
        return path
    try:
        spec = _module_spec(given)
    except (ImportError, ValueError) as error:
        raise UserError(f"{where}: there is no module {given} ({error})") from error
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise UserError(f"{where}: there is no module {given}; a part is FILE.py:NAME or MODULE:NAME")
    return Path(spec.origin)


def _module_spec(name: str) -> ModuleSpec | None:
    """The spec of a module, without importing its packages, whose code nobody has trusted yet."""
    package, *parts = name.split(".")
    spec = importlib.util.find_spec(package)
    for part in parts:
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = PathFinder.find_spec(f"{spec.name}.{part}", spec.submodule_search_locations)
    return spec


def _read(path: Path) -> str:
    """Reads a file of parts; returns the digest of its text."""
    try:
        # as Python does, without the mark that some editors begin files with
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
    digest = hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH]
    stem = path.stem.removesuffix(f"-{digest}")
    _SOURCES.setdefault(digest, Source(text, path, f"{stem}-{digest}.py"))
    return digest

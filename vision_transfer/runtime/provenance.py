"""Provenance of a run's numbers: digests of parameters, code and JSON values, and the versions of packages."""

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from types import CodeType
from typing import Any

import numpy as np

# Parts of the package that cannot change the numbers of a run: they print, draw, read what exists, or choose configs,
# whose values are in the run's digest. All other code counts, so a new file counts until it is listed here.
HARMLESS = (
    "__init__.py",
    "__main__.py",
    "cli",
    "config",
    "data/doubts.py",
    "errors.py",
    "models/summary.py",
    "predict/features.py",
    "predict/run.py",
    "predict/views.py",
    "runtime/cache_folder.py",
    "runtime/compilation.py",
    "runtime/console.py",
    "runtime/download.py",
    "runtime/huge_pages.py",
    "runtime/preemption.py",
    "runtime/program.py",
    "runtime/program_cache.py",
    "runtime/terminal.py",
    "runtime/timer.py",
    "tasks/__init__.py",
    "tasks/ablation",
    "tasks/benchmark",
    "tasks/cache.py",
    "tasks/check",
    "tasks/evaluate.py",
    "tasks/explain",
    "tasks/export",
    "tasks/figures.py",
    "tasks/folds.py",
    "tasks/predict.py",
    "tasks/probe",
    "tasks/report",
    "tasks/search",
    "tasks/show_augmentation.py",
    "tasks/study",
    "tasks/summary_and_fetch.py",
    "tasks/tables.py",
    "tasks/train/from_python.py",
    "tasks/train/messages.py",
    "tasks/train/trackers.py",
)
# The code that computes a frozen prefix from given weights, and the parts of it that cannot change the outputs.
PREFIX = ("models",)
PREFIX_HARMLESS = ("models/load.py", "models/pretrained", "models/summary.py")
PACKAGE = Path(__file__).parents[1]
RECORDED_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "pillow")
# Of `compile`: leaves out docstrings and assertions, which compute nothing.
WITHOUT_DOCSTRINGS = 2
DIGEST_LENGTH = 16


def json_digest(value: Any) -> str:
    """Short digest of a JSON value; the order of keys does not matter."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH]


def params_sha256(params: Mapping[str, Mapping[str, Any]]) -> str:
    """Digest of the names, shapes and float32 values of all parameters."""
    digest = hashlib.sha256()
    for layer in sorted(params):
        for name in sorted(params[layer]):
            values = np.ascontiguousarray(np.asarray(params[layer][name], np.float32))
            digest.update(f"{layer}/{name}{values.shape}".encode())
            digest.update(values.data)
    return digest.hexdigest()


def code_digest(parts: Sequence[str] = ("",), without: Sequence[str] = HARMLESS, *, also: Sequence[str] = ()) -> str:
    """Digest of the package's bytecode; comments, layout, docstrings and assertions do not count.

    Files and folders are relative to the package, and "" is the whole package; those in `also` count though `without`
    has them.
    """
    digest = hashlib.sha256()
    for name in source_files():
        if _lies_in(name, also) or (_lies_in(name, parts) and not _lies_in(name, without)):
            digest.update(name.encode())
            digest.update(_bytecode_sha256((PACKAGE / name).read_text(encoding="utf-8")))
    return digest.hexdigest()[:DIGEST_LENGTH]


@cache
def running_code_digest() -> str:
    """Digest of the whole package as it was when this process first asked: later edits do not change the process."""
    return code_digest()


def source_files() -> list[str]:
    """All source files of the package, such as `training/step.py`, in sorted order.

    The configs in an installed package are none of them: they choose values, which are in the run's digest.
    """
    files = (file.relative_to(PACKAGE).as_posix() for file in PACKAGE.rglob("*.py"))
    return sorted(file for file in files if not _lies_in(file, ("configs",)))


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that the numbers depend on."""
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in RECORDED_PACKAGES}


def _lies_in(file: str, parts: Sequence[str]) -> bool:
    return any(part in ("", file) or file.startswith(f"{part}/") for part in parts)


@cache  # a study asks before each of its runs
def _bytecode_sha256(source: str) -> bytes:
    code = compile(source, "", "exec", dont_inherit=True, optimize=WITHOUT_DOCSTRINGS)
    return hashlib.sha256(repr(_computed(code)).encode()).digest()


def _computed(value: Any) -> Any:
    """All of a code object, or of one of its constants, but line numbers; sets have no order of their own."""
    match value:
        case CodeType():
            numbers = value.co_argcount, value.co_posonlyargcount, value.co_kwonlyargcount, value.co_flags
            names = value.co_name, value.co_names, value.co_varnames, value.co_freevars, value.co_cellvars
            return (value.co_code, value.co_exceptiontable, numbers, names, *map(_computed, value.co_consts))
        case tuple():
            return tuple(map(_computed, value))
        case frozenset():
            return "set", *sorted(map(repr, value))
        case _:
            return value

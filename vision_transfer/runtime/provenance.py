"""What determined a run's numbers: digests of parameters, of numeric code, of values; and the versions it ran on."""

import ast
import hashlib
import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata, resources
from importlib.resources.abc import Traversable
from typing import Any

import numpy as np

# Parts of the package that cannot change the numbers of a run: they talk, draw, look at what exists, or choose configs,
# whose values are in the run's digest. All other code counts, so that a new file counts until it is named here.
HARMLESS = (
    "__init__.py",
    "cli",
    "config",
    "errors.py",
    "models/summary.py",
    "runtime/cache_folder.py",
    "runtime/compilation.py",
    "runtime/console.py",
    "runtime/huge_pages.py",
    "runtime/memory.py",
    "runtime/preemption.py",
    "runtime/timer.py",
    "tasks/__init__.py",
    "tasks/ablation",
    "tasks/benchmark",
    "tasks/cache",
    "tasks/check",
    "tasks/explain",
    "tasks/export",
    "tasks/probe",
    "tasks/report",
    "tasks/show_augmentation.py",
    "tasks/study",
    "tasks/summary_and_fetch.py",
    "tasks/train/messages.py",
    "tasks/train/tensorboard.py",
)
# The code that computes a frozen prefix from given weights, and what of it cannot change its outputs.
PREFIX = ("models",)
PREFIX_HARMLESS = ("models/pretrained", "models/summary.py")
PACKAGE = "vision_transfer"
RECORDED_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "pillow")
DIGEST_LENGTH = 16


def json_digest(value: Any) -> str:
    """Short digest of JSON values, independent of the order of keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH]


def params_sha256(params: Mapping[str, Mapping[str, Any]]) -> str:
    """Digest over names, shapes and values of all parameters, in the order of the tree."""
    digest = hashlib.sha256()
    for layer in sorted(params):
        for name in sorted(params[layer]):
            values = np.ascontiguousarray(np.asarray(params[layer][name], np.float32))
            digest.update(f"{layer}/{name}{values.shape}".encode())
            digest.update(values.data)
    return digest.hexdigest()


def code_digest(parts: Sequence[str] = ("",), without: Sequence[str] = HARMLESS) -> str:
    """Digest of the package's code, as syntax trees without docstrings: comments and layout do not count.

    Args:
        parts: files and folders that count, relative to the package; the empty one is all of it.
        without: files and folders in them that do not.
    """
    digest = hashlib.sha256()
    for name in source_files():
        if _lies_in(name, parts) and not _lies_in(name, without):
            source = resources.files(PACKAGE).joinpath(name).read_text(encoding="utf-8")
            digest.update(name.encode())
            digest.update(ast.dump(_without_docstrings(ast.parse(source))).encode())
    return digest.hexdigest()[:DIGEST_LENGTH]


def source_files() -> list[str]:
    """All source files of the package, such as `train/step.py`, sorted."""
    return sorted(_sources(resources.files(PACKAGE), ""))


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide numbers."""
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in RECORDED_PACKAGES}


def _lies_in(file: str, parts: Sequence[str]) -> bool:
    return any(part in ("", file) or file.startswith(f"{part}/") for part in parts)


def _sources(folder: Traversable, prefix: str) -> Iterator[str]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _sources(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(".py"):
            yield f"{prefix}{entry.name}"


def _without_docstrings(tree: ast.AST) -> ast.AST:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(
            node, clean=False
        ):
            node.body = node.body[1:]
    return tree

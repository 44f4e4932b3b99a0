"""What determined a run's numbers: digests of parameters, of numeric code, of values; and the versions it ran on."""

import ast
import hashlib
import json
import platform
from collections.abc import Iterable
from importlib import metadata, resources
from typing import Any

import numpy as np

from vision_transfer.models.network import Params

# Modules whose code decides numbers. The rest (screen, reports, command line) may change without changing a result.
NUMERIC_MODULES = (
    "models",
    "ops",
    "augment",
    "freezing.py",
    "inference.py",
    "features",
    "train",
    "data",
    "evaluation.py",
)
# What computes the frozen prefix.
PREFIX_MODULES = ("models", "ops")
RECORDED_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "pillow")
DIGEST_LENGTH = 16


def json_digest(value: Any) -> str:
    """Short digest of JSON values, independent of the order of keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH]


def params_sha256(params: Params) -> str:
    """Digest over names, shapes and values of all parameters, in the order of the tree."""
    digest = hashlib.sha256()
    for layer in sorted(params):
        for name in sorted(params[layer]):
            values = np.ascontiguousarray(np.asarray(params[layer][name], np.float32))
            digest.update(f"{layer}/{name}{values.shape}".encode())
            digest.update(values.data)
    return digest.hexdigest()


def code_digest(modules: Iterable[str] = NUMERIC_MODULES) -> str:
    """Digest of the syntax trees of the package's modules without docstrings: comments and layout do not count."""
    package = resources.files("vision_transfer")
    digest = hashlib.sha256()
    for module in modules:
        for name, source in sorted(_sources(package.joinpath(module), module)):
            digest.update(name.encode())
            digest.update(ast.dump(_without_docstrings(ast.parse(source))).encode())
    return digest.hexdigest()[:DIGEST_LENGTH]


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide numbers."""
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in RECORDED_PACKAGES}


def _sources(entry: Any, name: str) -> Iterable[tuple[str, str]]:
    if entry.is_file():
        if name.endswith(".py"):
            yield name, entry.read_text(encoding="utf-8")
    elif entry.is_dir():
        for child in entry.iterdir():
            yield from _sources(child, f"{name}/{child.name}")


def _without_docstrings(tree: ast.AST) -> ast.AST:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(
            node, clean=False
        ):
            node.body = node.body[1:]
    return tree

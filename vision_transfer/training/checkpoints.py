"""Checkpoints: a tree of arrays and some JSON, written whole or not at all, verified when read.

Orbax writes the arrays; this module adds what Orbax v0 lacks: each checkpoint is a folder named by its step and renamed
into place when complete, the shapes and dtypes are checked against a template, and a manifest of digests notices a
flipped byte. Nothing outside this file knows Orbax.
"""

# JAX, Optax and Orbax type their functions on trees only in part.
# pyright: reportUnknownMemberType=false, reportUnknownLambdaType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingTypeStubs=false

import errno
import json
import logging
import math
import os
import re
import shutil
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vision_transfer.errors import UserError
from vision_transfer.runtime.files import (
    file_sha256,
    lies_in,
    new_folder,
    raise_if_of_the_system,
    remove_leftovers,
    write_json,
)
from vision_transfer.runtime.provenance import json_digest

try:
    import resource
except ImportError:  # absent on Windows
    resource = None

MANIFEST = "manifest.json"
ARRAYS = "arrays"
# Blocks of a disk, and what Orbax writes beside each array: a folder, and its shape and dtype in a file.
BLOCK_BYTES, BYTES_BESIDE_AN_ARRAY = 4096, 4 * 4096
# The system's error in the text of the ValueError that Orbax raises, such as on a full disk.
DISK_FULL = "RESOURCE_EXHAUSTED"
SYSTEM_ERROR = re.compile(r"os_error_code='(\d+)'")


@dataclass(frozen=True)
class Checkpoint:
    """A tree of numpy arrays and what was saved beside it."""

    tree: Any
    metadata: dict[str, Any]


def save(folder: Path, step: int, tree: Any, metadata: dict[str, Any]) -> None:
    """Writes `folder/STEP` and then removes what else the folder holds, such as `checkpoints/head/last`.

    Of an equal step the newer one is kept, under a name of its own. The arrays of the tree are copied to the host;
    metadata are JSON values.

    Raises:
        OSError: the disk is full or cannot be written; what was there before is kept.
    """
    target = folder.absolute() / _new_name(folder, step)
    with new_folder(target) as temporary:
        try:
            arrays = _flat(tree)
            _check_room(target, arrays)
            with _silent_threads():
                _checkpointer().save(temporary / ARRAYS, arrays)
        except ValueError as error:
            raise (_of_the_system(error, target) or error) from error
        digests = {
            str(path.relative_to(temporary)): file_sha256(path)
            for path in sorted((temporary / ARRAYS).rglob("*"))
            if path.is_file()
        }
        content = {"step": step, "metadata": metadata, "sha256": digests}
        write_json(temporary / MANIFEST, {"digest": json_digest(content), "content": content})
    for other in _steps(folder):
        if other != target:
            shutil.rmtree(other)


def _new_name(folder: Path, step: int) -> str:
    """A name behind those of equal and earlier steps, so that the newest one is there at every moment."""
    name = f"{step:09d}"
    equal = [path.name for path in _steps(folder) if path.name.startswith(name)]
    return f"{name}{int(equal[-1].removeprefix(name) or 0) + 1:03d}" if equal else name


def _of_the_system(error: Exception, place: Path) -> OSError | None:
    """The system's error that Orbax and TensorStore put into the text of theirs, or None."""
    code = SYSTEM_ERROR.search(str(error))
    if code is None and DISK_FULL not in str(error):
        return None
    number = errno.ENOSPC if code is None else int(code[1])
    return OSError(number, os.strerror(number), str(place))


def _checkpointer() -> Any:
    """Orbax's, for this process alone: where there are several hosts, it would wait for all of them."""
    import orbax.checkpoint as ocp

    alone = ocp.options.MultiprocessingOptions(primary_host=jax.process_index(), active_processes={jax.process_index()})
    if jax.process_count() == 1:
        alone = ocp.options.MultiprocessingOptions()
    handler = ocp.PyTreeCheckpointHandler(use_ocdbt=False, multiprocessing_options=alone)
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


def _check_room(target: Path, arrays: dict[str, np.ndarray]) -> None:
    """Raises the system's error where the arrays do not fit on the disk, before Orbax starts to write them.

    Orbax writes in many threads, each of which would print its own traceback, some of them after ours.
    """
    files = [-(-array.nbytes // BLOCK_BYTES) * BLOCK_BYTES for array in arrays.values()]
    code = None
    if sum(files) + len(files) * BYTES_BESIDE_AN_ARRAY > shutil.disk_usage(target.parent).free:
        code = errno.ENOSPC
    elif resource is not None:
        limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
        if limit != resource.RLIM_INFINITY and max(files, default=0) > limit:
            code = errno.EFBIG
    if code is not None:
        raise OSError(code, os.strerror(code), str(target))


@contextmanager
def _silent_threads() -> Generator[None]:
    """Lets Orbax's threads fail without a traceback of each; the error is raised in this thread, too."""
    hooks = threading.excepthook, sys.unraisablehook, logging.root.manager.disable
    threading.excepthook = sys.unraisablehook = lambda _: None
    logging.disable()
    try:
        yield
    finally:
        threading.excepthook, sys.unraisablehook, disabled = hooks
        logging.disable(disabled)


def load(folder: Path, template: Any) -> Checkpoint | None:
    """The newest checkpoint in `folder`, or None if there is none.

    The template is a tree of the same structure with arrays, or `ShapeDtypeStruct`s, of the same shapes and dtypes.

    Raises:
        UserError: the files are damaged, or the checkpoint is of another network.
    """
    steps = _steps(folder)
    if not steps:
        return None
    newest = steps[-1]
    metadata, digests = _manifest(newest)
    _verify(newest, digests)
    _check_shapes(newest, template)
    try:
        flat = _checkpointer().restore(newest / ARRAYS)
    except Exception as error:  # Orbax and TensorStore raise almost anything
        raise_if_of_the_system(_of_the_system(error, newest) or error)
        raise UserError(f"checkpoint {newest}: cannot be read ({error}); remove it to train again") from error
    names = [_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(template)]
    tree = jax.tree.unflatten(jax.tree.structure(template), [np.asarray(flat[name]) for name in names])
    return Checkpoint(tree, metadata)


def load_metadata(folder: Path) -> dict[str, Any] | None:
    """The metadata of the newest checkpoint in `folder`, or None if there is none."""
    steps = _steps(folder)
    return _manifest(steps[-1])[0] if steps else None


def is_saved(folder: Path) -> bool:
    """Whether there is a checkpoint in `folder`."""
    return bool(_steps(folder))


def clean(folder: Path) -> None:
    """Removes what a killed process was writing in `folder`."""
    if folder.is_dir():
        remove_leftovers(folder)


def _steps(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path.absolute() for path in folder.iterdir() if path.name.isdecimal())


def _manifest(checkpoint: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The metadata and the digests of the files in the manifest, which carries a digest of itself."""
    try:
        manifest = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))
        content = manifest["content"]
        if json_digest(content) == manifest["digest"]:
            return dict(content["metadata"]), {str(name): str(digest) for name, digest in content["sha256"].items()}
        reason = "is damaged"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise_if_of_the_system(error)
        reason = f"cannot be read ({error})"
    raise UserError(f"checkpoint {checkpoint}: its {MANIFEST} {reason}; remove this folder to train again")


def _verify(checkpoint: Path, digests: dict[str, str]) -> None:
    for name, digest in digests.items():
        path = checkpoint / name
        if not lies_in(path, checkpoint):
            raise UserError(f"checkpoint {checkpoint}: its {MANIFEST} names {name!r}, which lies outside")
        found = file_sha256(path) if path.is_file() else "missing"
        if found != digest:
            raise UserError(
                f"checkpoint {checkpoint}: {name} is damaged (sha256 {found[:16]}, expected {digest[:16]}); "
                "remove this folder to train again"
            )


def _check_shapes(checkpoint: Path, template: Any) -> None:
    """Compares what the files state with the template, before anything of that size is made.

    Raises:
        UserError: an array has another shape or dtype, chunks of terabytes, or is none of the network's.
    """
    expected = {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(template)}
    files = {file.parent.name: file for file in (checkpoint / ARRAYS).glob("*/.zarray")}
    if extra := sorted(set(files) - set(expected)):
        raise UserError(f"checkpoint {checkpoint}: is of another network or optimizer; it has {extra} besides")
    if missing := sorted(set(expected) - set(files)):
        raise UserError(f"checkpoint {checkpoint}: is of another network or optimizer; it lacks {missing}")
    for name, file in files.items():
        try:
            stated = json.loads(file.read_text(encoding="utf-8"))
            shape, dtype = tuple(stated["shape"]), np.dtype(stated["dtype"])
            if not 0 < math.prod(chunks := stated["chunks"]) <= max(1, math.prod(shape)) or min(chunks, default=1) < 1:
                raise ValueError(f"chunks of {chunks} in an array of {shape}")
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise_if_of_the_system(error)
            raise UserError(f"checkpoint {checkpoint}: {name} cannot be read ({error!r}); remove it") from error
        if (shape, dtype) != ((leaf := expected[name]).shape, leaf.dtype):
            raise UserError(
                f"checkpoint {checkpoint}: {name} is {dtype}{shape}, expected {leaf.dtype}{tuple(leaf.shape)}"
            )


def _flat(tree: Any) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(tree))
    return {_name(path): np.asarray(leaf) for path, leaf in leaves}


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")

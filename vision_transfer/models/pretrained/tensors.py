"""Tensors in a weights file, matched with the wanted tensors, checked and read; and the digest over them.

A reader (`keras_h5`, `onnx_file`, `safetensors_file`) lists as `StoredTensor`s what a file *claims* to have, without
reading values. A naming (`names`) gives the candidates and layouts for each wanted tensor. Here the two sides are
compared, and only matching tensors are read, so the claims of a file never determine how much memory is used.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vision_transfer.errors import UserError

# layer -> parameter -> array; layers in network order
Params = dict[str, dict[str, np.ndarray]]
# layer -> parameter -> shape; layers in network order
Shapes = Mapping[str, Mapping[str, tuple[int, ...]]]

# Most lines per list in a message about a file.
MESSAGE_LINES = 20
# Longest text from a file in a message.
MESSAGE_TEXT_LENGTH = 120


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as claimed by a file; its values have not been read.

    Attributes:
        words: the parts of its name, for matching it with a layer.
        dtype: NumPy's name (`float32`) or the format's own.
        read: reads the values as `shape` float32; raises UserError if the file does not have them.
        unreadable: why it can never be read (`compressed`), or an empty text.
    """

    name: str
    words: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], np.ndarray]
    unreadable: str = ""


@dataclass(frozen=True)
class Layout:
    """A shape that a tensor may have in a file, and the conversion to Keras's layout (HWIO, or in × out)."""

    shape: tuple[int, ...]
    to_keras: Callable[[np.ndarray], np.ndarray] = lambda array: array


@dataclass(frozen=True)
class Wanted:
    """A tensor of the network, the tensors of the file that it may be, and the layouts that they may have."""

    layer: str
    parameter: str
    shape: tuple[int, ...]
    candidates: tuple[StoredTensor, ...]
    layouts: tuple[Layout, ...]


def damaged(path: Path, found: str) -> UserError:
    """The error for a file that does not have the content that it should."""
    return UserError(f"weights file {path}: {found}. The file is damaged or truncated. Download it again.")


def printable(text: str) -> str:
    """An arbitrary text from a file, made fit for a message: short and without control characters."""
    shown = text if text.isprintable() else ascii(text)
    return shown if len(shown) <= MESSAGE_TEXT_LENGTH else shown[:MESSAGE_TEXT_LENGTH] + "…"


def digest_order(parameters: Iterable[str]) -> list[str]:
    """The parameters in the order kernel, bias, others by name."""
    first = ("kernel", "bias")
    return sorted(parameters, key=lambda name: (first.index(name) if name in first else len(first), name))


def tensors_sha256(params: Mapping[str, Mapping[str, Any]]) -> str:
    """Hexadecimal sha256 over the tensors: for each layer, in the given order, kernel and then bias.

    The bytes are little-endian float32 in C order, kernels HWIO or in × out.
    """
    digest = hashlib.sha256()
    for parameters in params.values():
        for name in digest_order(parameters):
            digest.update(np.ascontiguousarray(parameters[name], dtype="<f4").data)
    return digest.hexdigest()


def read_wanted(path: Path, wanted: Sequence[Wanted], stored: Sequence[StoredTensor]) -> Params:
    """Reads all wanted tensors, in network order, as float32 in Keras's layout.

    Raises:
        UserError: a tensor is missing, ambiguous, of another shape or type, or has a NaN or an infinity. The message
            shows both sides of each tensor that does not match, and the other tensors that are `stored` in the file.
    """
    params: Params = {}
    problems: list[str] = []
    for tensor in wanted:
        chosen = _choose(tensor)
        if isinstance(chosen, str):
            problems.append(f"{tensor.layer}/{tensor.parameter}: wanted {tensor.shape} float32; {chosen}")
            continue
        found, layout = chosen
        values = np.ascontiguousarray(layout.to_keras(found.read()))
        if not np.isfinite(values).all():
            bad = int(values.size - np.isfinite(values).sum())
            problems.append(
                f"{tensor.layer}/{tensor.parameter}: wanted finite numbers; {printable(found.name)} has {bad:,} NaN or "
                f"infinite of {values.size:,}"
            )
            continue
        params.setdefault(tensor.layer, {})[tensor.parameter] = values
    if problems:
        used = {candidate.name for tensor in wanted for candidate in tensor.candidates}
        others = [_side(tensor) for tensor in stored if tensor.name not in used]
        raise UserError(_mismatch(path, problems, len(wanted), others))
    return params


def _choose(tensor: Wanted) -> tuple[StoredTensor, Layout] | str:
    """The only matching tensor of the file and its layout, or a description of what the file has instead."""
    fitting = [
        (found, layout)
        for found in tensor.candidates
        for layout in tensor.layouts
        if (found.shape, found.dtype, found.unreadable) == (layout.shape, "float32", "")
    ]
    if len(fitting) == 1:
        return fitting[0]
    if not tensor.candidates:
        return "the file has none"
    shapes = " or ".join(str(layout.shape) for layout in tensor.layouts if layout.shape != tensor.shape)
    as_in_file = f" (in the file: {shapes})" if shapes else ""
    return f"the file has {' and '.join(map(_side, tensor.candidates[:4]))}{as_in_file}"


def _side(tensor: StoredTensor) -> str:
    dimensions = str(tensor.shape) if len(tensor.shape) <= MESSAGE_LINES else f"{len(tensor.shape)} dimensions"
    return f"{printable(tensor.name)} {dimensions} {printable(tensor.dtype)}" + (
        f", {tensor.unreadable}" if tensor.unreadable else ""
    )


def _mismatch(path: Path, problems: list[str], wanted: int, others: list[str]) -> str:
    lines = [f"weights file {path}: {len(problems)} of the {wanted} tensors of the network are missing or do not match"]
    lines += _shortened(problems)
    if others:
        lines += ["other tensors in the file:", *_shortened(others)]
    lines.append("give weights of exactly this architecture, or set config.model.backbone to theirs")
    return "\n".join(lines)


def _shortened(lines: list[str]) -> list[str]:
    shown = [f"  {line}" for line in lines[:MESSAGE_LINES]]
    return [*shown, f"  … and {len(lines) - MESSAGE_LINES} more"] if len(lines) > MESSAGE_LINES else shown

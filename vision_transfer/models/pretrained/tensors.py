"""Tensors in a weights file, matched with the wanted tensors, checked and read; and the digest over them.

A reader (`keras_h5`, `keras_archive`, `torch_file`, `onnx_file`, `safetensors_file`) lists as `StoredTensor`s what a
file *claims* to have, without reading values. A naming (`keras_names`, `torch_names`) gives the candidates and layouts
for each wanted tensor. Here the two sides are compared, and only matching tensors are read, so the claims of a file
never determine how much memory is used.
"""

import hashlib
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vision_transfer.errors import UserError

# What zipfile raises for archives that are damaged, encrypted, or compressed in unknown ways.
ZIP_DAMAGE = (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error, lzma.LZMAError)

# layer -> parameter -> array; layers in network order
Params = dict[str, dict[str, np.ndarray]]
# layer -> parameter -> shape; layers in network order
Shapes = Mapping[str, Mapping[str, tuple[int, ...]]]

# Types whose values can be read, as float32.
READABLE_DTYPES = ("float32", "float16", "bfloat16")
KERNEL = "kernel"
# Rank of a convolution's kernel.
CONVOLUTION_RANK = 4
# Running statistics of a batch norm; they have the shape of its scale.
STATISTICS = ("mean", "variance")
SCALE = "scale"
# Most lines per list in a message about a file.
MESSAGE_LINES = 20
# Longest text from a file in a message.
MESSAGE_TEXT_LENGTH = 120


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as claimed by a file; its values have not been read.

    Attributes:
        words: the parts of its name, for matching it with a layer.
        dtype: numpy's name, `bfloat16`, or the format's own; `READABLE_DTYPES` can be read.
        read: reads the values as `shape` float32; raises UserError if the file does not have them.
        unreadable: why it can never be read (`compressed`), or an empty text.
        place: orders the layers of a file whose names do not say which they are.
    """

    name: str
    words: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], np.ndarray]
    unreadable: str = ""
    place: int = 0


@dataclass(frozen=True)
class Layout:
    """A shape that a tensor may have in a file, and the conversion to Keras's layout (HWIO, or in × out)."""

    shape: tuple[int, ...]
    to_keras: Callable[[np.ndarray], np.ndarray] = lambda array: array


@dataclass(frozen=True)
class Wanted:
    """A tensor of the network, the tensors of the file that it may be, and the layouts that they may have.

    The `remark` is for a message, where there are no candidates and the naming can tell why.
    """

    layer: str
    parameter: str
    shape: tuple[int, ...]
    candidates: tuple[StoredTensor, ...]
    layouts: tuple[Layout, ...]
    remark: str = ""


def file_dtype(name: str) -> np.dtype:
    """Numpy's dtype of the bytes of a readable type in a file, all of which are little-endian."""
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name).newbyteorder("<")


def is_depthwise(kernel: tuple[int, ...]) -> bool:
    """Whether a convolution's kernel, HWIO, has one output for many inputs: that of a depthwise convolution here."""
    return kernel[-1] == 1 < kernel[-2]


def oihw_or_same(shape: tuple[int, ...]) -> tuple[Layout, ...]:
    """The layout OIHW of ONNX and PyTorch for a convolution's kernel, HWIO here; for any other tensor the one here.

    A depthwise kernel, height × width × channels × 1 here, is channels × 1 × height × width there.
    """
    if len(shape) != CONVOLUTION_RANK:
        return (Layout(shape),)
    height, width, inputs, outputs = shape
    layouts = (Layout((outputs, inputs, height, width), lambda kernel: kernel.transpose(2, 3, 1, 0)),)
    if is_depthwise(shape):
        layouts += (Layout((inputs, 1, height, width), lambda kernel: kernel.transpose(2, 3, 0, 1)),)
    return layouts


def damaged(path: Path, found: str) -> UserError:
    """The error for a file that does not have the content that it should."""
    return UserError(f"weights file {path}: {found}. The file is damaged or truncated. Download it again.")


def unread() -> np.ndarray:
    """Reads a tensor that cannot be read."""
    raise AssertionError("a tensor without values is never read")


def printable(text: str) -> str:
    """An arbitrary text from a file, made fit for a message: short and without control characters."""
    shown = text if text.isprintable() else ascii(text)
    return shown if len(shown) <= MESSAGE_TEXT_LENGTH else shown[:MESSAGE_TEXT_LENGTH] + "…"


def with_statistics(shapes: Shapes) -> dict[str, dict[str, tuple[int, ...]]]:
    """Shapes of parameters and, in the layers with a scale, of running statistics."""
    return {
        layer: dict(parameters) | (dict.fromkeys(STATISTICS, parameters[SCALE]) if SCALE in parameters else {})
        for layer, parameters in shapes.items()
    }


def digest_order(parameters: Iterable[str]) -> list[str]:
    """The parameters in the order kernel, bias, others by name."""
    first = ("kernel", "bias")
    return sorted(parameters, key=lambda name: (first.index(name) if name in first else len(first), name))


def tensors_sha256(params: Mapping[str, Mapping[str, Any]]) -> str:
    """Hexadecimal sha256 over the tensors: for each layer, in the given order, kernel, bias, and others by name.

    The bytes are little-endian float32 in C order, kernels HWIO or in × out. Running statistics, where a network has
    them, are among the others of their layers.
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
    lacking = [tensor for tensor in wanted if tensor.parameter in STATISTICS and not tensor.candidates]
    if lacking and len(lacking) == len(problems):
        raise UserError(_no_statistics(path, lacking))
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
        if (found.shape, found.unreadable) == (layout.shape, "") and found.dtype in READABLE_DTYPES
    ]
    if len(fitting) == 1:
        return fitting[0]
    if not tensor.candidates:
        return f"the file has {tensor.remark or 'none'}"
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


def _no_statistics(path: Path, lacking: list[Wanted]) -> str:
    first = lacking[0]
    layers = len({tensor.layer for tensor in lacking})
    return (
        f"weights file {path}: it has no running statistics for {layers} batch norms of the network, such as "
        f"{first.layer}/{first.parameter}, {first.shape} float32; without them a pretrained network computes something "
        "else. Save all of the network's state: model.save_weights('x.weights.h5') in Keras, "
        "torch.save(model.state_dict(), 'x.pth') in PyTorch"
    )


def _shortened(lines: list[str]) -> list[str]:
    shown = [f"  {line}" for line in lines[:MESSAGE_LINES]]
    return [*shown, f"  … and {len(lines) - MESSAGE_LINES} more"] if len(lines) > MESSAGE_LINES else shown

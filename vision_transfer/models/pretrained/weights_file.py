"""Reads a weights file of any known format as parameters and running statistics of a network."""

import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path

from vision_transfer.errors import UserError
from vision_transfer.models.pretrained import keras_h5, safetensors_file
from vision_transfer.models.pretrained.keras_archive import is_keras_archive, open_keras_archive
from vision_transfer.models.pretrained.keras_h5 import open_keras_h5
from vision_transfer.models.pretrained.keras_names import AUTOMATIC_NAME, by_keras_names, by_onnx_names
from vision_transfer.models.pretrained.onnx_file import open_onnx
from vision_transfer.models.pretrained.safetensors_file import open_safetensors, read_metadata
from vision_transfer.models.pretrained.tensors import (
    STATISTICS,
    Params,
    Shapes,
    StoredTensor,
    Wanted,
    damaged,
    printable,
    read_wanted,
    with_statistics,
)
from vision_transfer.models.pretrained.torch_file import open_torch_legacy, open_torch_zip
from vision_transfer.models.pretrained.torch_names import COUNTER, TorchNames, by_torch_names, has_torch_names

FORMATS = "Keras .h5 or .keras, PyTorch .pth, .safetensors or .onnx"
# First bytes of files by torch.save and of Keras 3's .keras, and of a pickle.
ZIP_SIGNATURE = b"PK\x03\x04"
PICKLE_SIGNATURE = b"\x80"
# An ONNX file starts with the field `ir_version`.
ONNX_SIGNATURE = b"\x08"
SIGNATURE_BYTES = 16
# The beginning of a layer's name that is its stage, such as `block2` of `block2c_expand_conv`.
STAGE_NAME = re.compile(r"([A-Za-z]+_?\d+)[a-z]?(?=_|$)")
OPENERS = {
    "hdf5": open_keras_h5,
    "keras": open_keras_archive,
    "onnx": open_onnx,
    "safetensors": open_safetensors,
    "torch": open_torch_zip,
    "torch legacy": open_torch_legacy,
}


@dataclass(frozen=True)
class WeightsFile:
    """The content of a weights file.

    Attributes:
        params: layer → parameter → float32 array, HWIO or in × out, in the order of the requested shapes.
        batch_stats: the running statistics `mean` and `variance` of batch norms, like `params`.
        preprocessing: as the names of the tensors suggest: that of a PyTorch library, or None for names of Keras.
        metadata: texts in the header; only safetensors files have any.
    """

    params: Params
    preprocessing: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    batch_stats: Params = field(default_factory=dict)

    @property
    def tensors(self) -> Params:
        """Parameters and running statistics together, by layer."""
        return {layer: parameters | self.batch_stats.get(layer, {}) for layer, parameters in self.params.items()}


def read_weights_file(path: Path, shapes: Shapes, torch_names: Sequence[TorchNames] = ()) -> WeightsFile:
    """Reads the tensors of a network from a file; the first bytes determine its format. Nothing in a file is run.

    Args:
        path: Keras .h5 (weights or whole model, with or without other layers), Keras 3's .weights.h5 and .keras, ONNX,
            safetensors, or a state dict by `torch.save`; float32, float16 or bfloat16.
        shapes: layer → parameter → shape in Keras's layout, in network order. A layer with a `scale` also has running
            statistics of its shape, which must be in the file.
        torch_names: the names of the layers in PyTorch's libraries.

    Raises:
        UserError: the file is missing, has another format, or is truncated or damaged; or a tensor is missing,
            ambiguous, of a wrong shape or type, or not finite.
    """
    kind = _format(path)
    wanted_shapes = with_statistics(shapes)
    preprocessing = None
    with OPENERS[kind](path) as stored:
        if has_torch_names(stored):
            wanted, names = by_torch_names(stored, wanted_shapes, torch_names)
            if names is None:
                raise _foreign_names(path, stored, torch_names)
            preprocessing = names.preprocessing
        else:
            by_names = by_onnx_names if kind == "onnx" else by_keras_names
            wanted = by_names(stored, wanted_shapes)
        tensors = read_wanted(path, wanted, stored)
        if kind != "onnx":  # whose graphs have constants of their own
            _check_left_over(path, stored, wanted)
    params = {layer: {name: tensors[layer][name] for name in parameters} for layer, parameters in shapes.items()}
    batch_stats = {
        layer: {name: parameters[name] for name in STATISTICS}
        for layer, parameters in tensors.items()
        if wanted_shapes[layer].keys() != shapes[layer].keys()
    }
    metadata = read_metadata(path) if kind == "safetensors" else {}
    return WeightsFile(params, preprocessing, metadata, batch_stats)


def _check_left_over(path: Path, stored: Sequence[StoredTensor], wanted: Sequence[Wanted]) -> None:
    """Raises UserError if the file has more in the network's own layers or stages than the network: it is of another.

    ResNet101 has all layers of ResNet50 with the same shapes, and VGG19 those of VGG16. Other layers, such as those of
    a head, are ignored.
    """
    candidates = {one.name for tensor in wanted for one in tensor.candidates}
    parts = {tensor.name: tuple(".".join(tensor.words).split(".")) for tensor in stored}
    used = [parts[tensor.name][:-1] for tensor in stored if tensor.name in candidates]
    around = sum(1 for _ in takewhile(lambda words: len(set(words)) == 1, zip(*used, strict=False)))
    layers, stages = {tensor.layer for tensor in wanted}, {_stage_of(words[around:]) for words in used} - {""}
    more = [
        printable(tensor.name)
        for tensor in stored
        if tensor.name not in candidates
        and parts[tensor.name][-1] != COUNTER
        and parts[tensor.name][:around] == (used[0][:around] if used else ())
        and (not layers.isdisjoint(tensor.words[:-1]) or _stage_of(parts[tensor.name][around:-1]) in stages)
    ]
    if more:
        raise UserError(
            f"weights file {path}: it has {len(more)} more tensors in the layers or stages of the network, such as "
            f"{more[0]}, so it is of another one; set config.model.backbone to that"
        )


def _stage_of(words: Sequence[str]) -> str:
    """The stage that a layer's name begins with: `layer3` of `layer3.6.conv1`, `block2` of `block2c_expand_conv`."""
    first = words[0] if words else ""
    if AUTOMATIC_NAME.fullmatch(first):
        return ""
    found = STAGE_NAME.match(first)
    return found[1] if found else first if len(words) > 1 and first != words[1] else ""


def _foreign_names(path: Path, stored: Sequence[StoredTensor], torch_names: Sequence[TorchNames]) -> UserError:
    """The error for a file with PyTorch's names of none of the backbone's layers."""
    found = f"weights file {path}: its tensors have PyTorch's names, such as {printable(stored[0].name)}"
    if torch_names:
        expected = " or ".join(f"{next(iter(one.modules.values()))}.weight ({one.library})" for one in torch_names)
        return UserError(
            f"{found}, but none of this backbone's, which begin with {expected}; set config.model.backbone to the "
            "network of the file"
        )
    return UserError(
        f"{found}, but this backbone is as Keras has it, and PyTorch's pads or normalises differently; give a file "
        "with Keras's names, or set config.model.backbone to a network as PyTorch has it: one that ends in _torch"
    )


def _format(path: Path) -> str:
    start = _first_bytes(path)
    if start.startswith(keras_h5.SIGNATURE):
        return "hdf5"
    if start[safetensors_file.LENGTH_BYTES :].startswith(safetensors_file.HEADER_START):
        return "safetensors"
    if start.startswith(ZIP_SIGNATURE):
        return "keras" if is_keras_archive(path) else "torch"
    if start.startswith(PICKLE_SIGNATURE):
        return "torch legacy"
    if start.startswith(ONNX_SIGNATURE):
        return "onnx"
    raise UserError(f"weights file {path}: starts with {start!r}, which is none of the formats allowed ({FORMATS})")


def _first_bytes(path: Path) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise UserError(f"weights file {path}: not a file; give a file ({FORMATS}) in config.model.weights_path")
        if status.st_size == 0:
            raise damaged(path, "empty (0 bytes)")
        with path.open("rb") as stream:
            return stream.read(SIGNATURE_BYTES)
    except OSError as error:
        raise UserError(
            f"weights file {path}: {error.strerror or error}; give a readable file ({FORMATS}) in "
            "config.model.weights_path"
        ) from error

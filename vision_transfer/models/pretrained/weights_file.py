"""Reads a weights file of any known format as parameters of the network."""

import stat
from dataclasses import dataclass
from pathlib import Path

from vision_transfer.errors import UserError
from vision_transfer.models.pretrained import keras_h5, safetensors_file
from vision_transfer.models.pretrained.keras_h5 import open_keras_h5
from vision_transfer.models.pretrained.names import by_keras_names, by_onnx_names, by_torch_names, has_torch_names
from vision_transfer.models.pretrained.onnx_file import open_onnx
from vision_transfer.models.pretrained.safetensors_file import open_safetensors, read_metadata
from vision_transfer.models.pretrained.tensors import Params, Shapes, damaged, read_wanted

FORMATS = "Keras .h5, .onnx or .safetensors"
# First bytes of files by torch.save, of Keras 3's .keras and numpy's .npz, and of a pickle.
ZIP_SIGNATURE = b"PK\x03\x04"
PICKLE_SIGNATURE = b"\x80"
# An ONNX file starts with the field `ir_version`.
ONNX_SIGNATURE = b"\x08"
SIGNATURE_BYTES = 16
OPENERS = {"hdf5": open_keras_h5, "onnx": open_onnx, "safetensors": open_safetensors}


@dataclass(frozen=True)
class WeightsFile:
    """The content of a weights file.

    Attributes:
        params: layer → parameter → float32 array, HWIO or in × out, in the order of the requested shapes.
        preprocessing: as the names of the tensors suggest: `torch` for names of torchvision and timm, else `caffe`.
        metadata: texts in the header; only safetensors files have any.
    """

    params: Params
    preprocessing: str
    metadata: dict[str, str]


def read_weights_file(path: Path, shapes: Shapes) -> WeightsFile:
    """Reads the tensors of a network from a file; the first bytes determine its format.

    Args:
        path: Keras .h5 (weights or whole model, with or without other layers), Keras 3's .weights.h5, ONNX,
            safetensors (ours, or with torchvision's or timm's names).
        shapes: layer → parameter → shape in Keras's layout, in network order.

    Raises:
        UserError: the file is missing, has another format, or is truncated or damaged; or a tensor is missing,
            ambiguous, of a wrong shape or type, or not finite.
    """
    kind = _format(path)
    with OPENERS[kind](path) as stored:
        if has_torch_names(stored):
            wanted, preprocessing = by_torch_names(stored, shapes), "torch"
        else:
            by_names = by_onnx_names if kind == "onnx" else by_keras_names
            wanted, preprocessing = by_names(stored, shapes), "caffe"
        params = read_wanted(path, wanted, stored)
    return WeightsFile(params, preprocessing, read_metadata(path) if kind == "safetensors" else {})


def _format(path: Path) -> str:
    start = _first_bytes(path)
    if start.startswith(keras_h5.SIGNATURE):
        return "hdf5"
    if start[safetensors_file.LENGTH_BYTES :].startswith(safetensors_file.HEADER_START):
        return "safetensors"
    if start.startswith((ZIP_SIGNATURE, PICKLE_SIGNATURE)):
        raise UserError(
            f"weights file {path}: this is a zip or pickle file, as from torch.save or Keras's .keras. A pickle can "
            f"run code, so it is not read; allowed are {FORMATS}. Convert it with the library that wrote it: "
            "safetensors.torch.save_file(state_dict, 'weights.safetensors') or model.save_weights('x.weights.h5')"
        )
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

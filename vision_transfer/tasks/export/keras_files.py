"""Writes Keras's two formats of whole models without Keras: `.keras` (version 3) and `.h5` (all versions).

Formats: keras/src/saving/saving_lib.py (a zip of `metadata.json`, `config.json` and `model.weights.h5`) and
keras/src/legacy/saving/legacy_h5_format.py (the configuration is an attribute, the weights are in `model_weights`).
"""

import io
import json
import re
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vision_transfer.models.pretrained.keras_h5 import ATTRIBUTES, write_layers
from vision_transfer.tasks.export.keras_layers import FIRST_SEED, MODEL_NAME, SEED_STATE, KerasLayer

# The first version of the .keras format; later ones read it.
KERAS_VERSION = "3.0.0"
# Zip members have a time; it is fixed, so that equal models give equal files.
ZIP_TIME = (1980, 1, 1, 0, 0, 0)


def write_keras(path: Path, layers: Sequence[KerasLayer], input_shape: tuple[int, ...]) -> None:
    """Writes a `.keras` file, for `keras.saving.load_model`."""
    members = {
        "metadata.json": json.dumps({"keras_version": KERAS_VERSION, "date_saved": "1980-01-01@00:00:00"}).encode(),
        "config.json": json.dumps(_config(layers, input_shape)).encode(),
        "model.weights.h5": _weights(layers),
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name, ZIP_TIME), content)


def write_legacy_h5(path: Path, layers: Sequence[KerasLayer], input_shape: tuple[int, ...]) -> None:
    """Writes an `.h5` file of the whole model, for `load_model` of Keras 2 and 3."""
    import h5py

    described: list[dict[str, Any]] = [
        {"class_name": "InputLayer", "config": {"batch_input_shape": [None, *input_shape], "name": "images"}},
        *({"class_name": layer.class_name, "config": layer.config} for layer in layers),
    ]
    model = {"class_name": "Sequential", "config": {"name": MODEL_NAME, "layers": described}}
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(model)
        file.attrs.update(ATTRIBUTES)
        write_layers(file.create_group("model_weights"), {layer.name: layer.weights for layer in layers})


def _config(layers: Sequence[KerasLayer], input_shape: tuple[int, ...]) -> dict[str, Any]:
    shape = [None, *input_shape]
    images = {"batch_shape": shape, "dtype": "float32", "name": "images"}
    described = [_described("InputLayer", images), *(_described(layer.class_name, layer.config) for layer in layers)]
    model = {"name": MODEL_NAME, "layers": described, "build_input_shape": shape}
    return {"module": "keras", "class_name": "Sequential", "config": model, "registered_name": None}


def _described(class_name: str, config: dict[str, Any]) -> dict[str, Any]:
    return {"module": "keras.layers", "class_name": class_name, "config": config, "registered_name": None}


def _weights(layers: Sequence[KerasLayer]) -> bytes:
    """The file of weights: `layers/CLASS_NUMBER/vars/PLACE`, where layers are numbered by class instead of named."""
    import h5py

    content = io.BytesIO()
    seen: Counter[str] = Counter()
    with h5py.File(content, "w") as file:
        for layer in layers:
            kind = _snake_case(layer.class_name)
            group = f"layers/{kind}_{seen[kind]}" if seen[kind] else f"layers/{kind}"
            seen[kind] += 1
            variables = file.create_group(f"{group}/vars")
            variables.attrs["name"] = layer.name
            for place, values in enumerate(layer.weights.values()):
                variables.create_dataset(str(place), data=np.asarray(values, np.float32))
            if layer.seed:
                file.create_group(f"{group}/{SEED_STATE}/vars").create_dataset("0", data=FIRST_SEED)
    return content.getvalue()


def _snake_case(name: str) -> str:
    """`BatchNormalization` → `batch_normalization`, `Conv2D` → `conv2d`, as in Keras."""
    return re.sub("([a-z])([A-Z])", r"\1_\2", re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)).lower()

"""Writes Keras's two formats of whole models without Keras: `.keras` (version 3) and `.h5` (all versions).

Formats: keras/src/saving/saving_lib.py (a zip of `metadata.json`, `config.json` and `model.weights.h5`) and
keras/src/legacy/saving/legacy_h5_format.py (the configuration is an attribute, the weights are in `model_weights`).
A chain of layers is a Sequential; others are Functional models, whose layers name their inputs
(keras/src/models/functional.py).
"""

import io
import json
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vision_transfer.models.pretrained.keras_archive import snake_case
from vision_transfer.models.pretrained.keras_h5 import ATTRIBUTES, write_layers
from vision_transfer.tasks.export.keras_layers import FIRST_SEED, INPUT_NAME, MODEL_NAME, SEED_STATE, KerasLayer, Tensor

# The first version of the .keras format; later ones read it.
KERAS_VERSION = "3.0.0"
# Where Keras looks for the class of models that are no chain.
FUNCTIONAL_MODULE = "keras.src.models.functional"
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

    images = {"batch_input_shape": [None, *input_shape], "name": INPUT_NAME}
    described: list[dict[str, Any]] = [
        {"class_name": "InputLayer", "config": images},
        *({"class_name": layer.class_name, "config": layer.config} for layer in layers),
    ]
    if _is_chain(layers):
        model = {"class_name": "Sequential", "config": {"name": MODEL_NAME, "layers": described}}
    else:
        nodes = [[], *([[[tensor.name, 0, 0, {}] for tensor in layer.inputs]] for layer in layers)]
        model = {"class_name": "Functional", "config": _graph(described, nodes)}
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(model)
        file.attrs.update(ATTRIBUTES)
        write_layers(file.create_group("model_weights"), {layer.name: layer.weights for layer in layers})


def _config(layers: Sequence[KerasLayer], input_shape: tuple[int, ...]) -> dict[str, Any]:
    shape = [None, *input_shape]
    images = {"batch_shape": shape, "dtype": "float32", "name": INPUT_NAME}
    described = [_described("InputLayer", images), *(_described(layer.class_name, layer.config) for layer in layers)]
    if _is_chain(layers):
        model = {"name": MODEL_NAME, "layers": described, "build_input_shape": shape}
        return {"module": "keras", "class_name": "Sequential", "config": model, "registered_name": None}
    nodes = [[], *([{"args": _arguments(layer.inputs), "kwargs": {}}] for layer in layers)]
    model = _graph(described, nodes)
    return {"module": FUNCTIONAL_MODULE, "class_name": "Functional", "config": model, "registered_name": "Functional"}


def _is_chain(layers: Sequence[KerasLayer]) -> bool:
    names = (INPUT_NAME, *(layer.name for layer in layers))
    return all([tensor.name for tensor in layer.inputs] == [name] for layer, name in zip(layers, names, strict=False))


def _graph(described: list[dict[str, Any]], nodes: list[Any]) -> dict[str, Any]:
    """The configuration of a Functional model; `nodes` say what each layer is called with."""
    layers = [
        {**layer, "name": layer["config"]["name"], "inbound_nodes": calls}
        for layer, calls in zip(described, nodes, strict=True)
    ]
    ends = {"input_layers": [[INPUT_NAME, 0, 0]], "output_layers": [[layers[-1]["name"], 0, 0]]}
    return {"name": MODEL_NAME, "trainable": True, "layers": layers, **ends}


def _arguments(inputs: Sequence[Tensor]) -> list[Any]:
    """The arguments of a layer's call: its input, or the list of its inputs."""
    tensors = [
        {
            "class_name": "__keras_tensor__",
            "config": {"shape": [None, *tensor.shape], "dtype": "float32", "keras_history": [tensor.name, 0, 0]},
        }
        for tensor in inputs
    ]
    return tensors if len(tensors) == 1 else [tensors]


def _described(class_name: str, config: dict[str, Any]) -> dict[str, Any]:
    return {"module": "keras.layers", "class_name": class_name, "config": config, "registered_name": None}


def _weights(layers: Sequence[KerasLayer]) -> bytes:
    """The file of weights: `layers/CLASS_NUMBER/vars/PLACE`, where layers are numbered by class instead of named."""
    import h5py

    content = io.BytesIO()
    seen: Counter[str] = Counter()
    with h5py.File(content, "w") as file:
        for layer in layers:
            kind = snake_case(layer.class_name)
            group = f"layers/{kind}_{seen[kind]}" if seen[kind] else f"layers/{kind}"
            seen[kind] += 1
            variables = file.create_group(f"{group}/vars")
            variables.attrs["name"] = layer.name
            for place, values in enumerate(layer.weights.values()):
                variables.create_dataset(str(place), data=np.asarray(values, np.float32))
            if layer.seed:
                file.create_group(f"{group}/{SEED_STATE}/vars").create_dataset("0", data=FIRST_SEED)
    return content.getvalue()

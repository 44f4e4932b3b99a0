"""The worker of a case in Keras on TensorFlow, JAX or PyTorch; run by an interpreter that has both.

To be fair to Keras: the batch is a preprocessed float32 tensor, so that no input pipeline is counted (ours casts and
preprocesses uint8 images inside its step); the steps are Keras's own `train_on_batch` and `predict_on_batch`, which
compile the same graph as `fit` and `predict`, with `jit_compile="auto"`; channels come last, Keras's default (and the
only order of TensorFlow's CPU kernels); frozen layers are `trainable = False` before `compile`, so that no gradient of
them is computed.
"""

import importlib
import os
from typing import Any

from vision_transfer.tasks.benchmark.protocol import Work, serve

TENSORFLOW = "tensorflow"
RATE = 1e-6
MERGES = {"add": "Add", "concat": "Concatenate", "multiply": "Multiply"}
KERAS_OPTIMIZERS = {"rmsprop": "RMSprop", "adam": "Adam", "sgd": "SGD"}


def build(request: dict[str, Any]) -> Work:
    """Builds the model of a request from its layer table, compiles it and warms it up."""
    backend = os.environ["KERAS_BACKEND"] = request["variant"] or TENSORFLOW
    import keras  # pyright: ignore[reportMissingImports, reportMissingModuleSource]
    import numpy as np

    below = importlib.import_module(backend)
    if request["precision"] == "bfloat16":
        keras.config.set_dtype_policy("mixed_bfloat16")
    images = keras.Input(tuple(request["input_shape"]), batch_size=request["batch"])
    model = keras.Model(images, _connect(keras, request, request["layers"], images))
    shape = (request["batch"], *request["input_shape"])
    drawn = np.random.default_rng(0).standard_normal(shape, np.float32)
    inputs: Any = keras.ops.convert_to_tensor(np.abs(drawn) if request["source"] == "features" else drawn)
    classes = np.arange(request["batch"]) % max(2, request["outputs"])
    labels = keras.ops.convert_to_tensor(classes[:, None].astype(np.float32) if request["outputs"] == 1 else classes)
    loss = (
        keras.losses.BinaryCrossentropy(from_logits=True)
        if request["outputs"] == 1
        else keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    optimizer = getattr(keras.optimizers, KERAS_OPTIMIZERS[request["optimizer"]])(RATE)
    model.compile(optimizer=optimizer, loss=loss)

    def run(times: int) -> None:
        for _ in range(times):
            if request["work"] == "forward":
                model.predict_on_batch(inputs)
            else:
                model.train_on_batch(inputs, labels)

    run(2)
    library = f"keras {keras.__version__}, {'tf' if backend == TENSORFLOW else backend} {below.__version__}"
    is_gpu = any(name in str(inputs.device).lower() for name in ("cuda", "gpu"))
    return run, {"device": "gpu" if is_gpu else "cpu", "library": library}, dict


def _connect(keras: Any, request: dict[str, Any], rows: list[dict[str, Any]], tensor: Any) -> Any:
    """The output of rows for a symbolic input."""
    outputs: dict[str, Any] = {}
    for row in rows:
        if row["kind"] == "Block":
            ends = [_connect(keras, request, branch, tensor) for branch in row["branches"]]
            tensor = getattr(keras.layers, MERGES[row["merge"]["kind"]])(name=row["merge"]["name"])(ends)
            outputs[row["name"]] = tensor
            continue
        if row["kind"] == "PoolLayers":
            average, joined = layers_of_row(keras.layers, row)
            tensor = joined([average(outputs[name]) for name in row["layers"]])
            continue
        for layer in layers_of_row(keras.layers, row):
            layer.trainable = row["name"] in request["trainable"]
            is_fixed = row["name"] in request["inference_layers"] and row["kind"] == "BatchNorm"
            tensor = layer(tensor, training=False) if is_fixed else layer(tensor)
        outputs[row["name"]] = tensor
    return tensor


def layers_of_row(layers: Any, row: dict[str, Any]) -> list[Any]:
    """The layers of a row that is no block; margins become a layer of zeros, which for a pool follows a ReLU."""
    name, padding = row["name"], row.get("padding")
    if row["kind"] != "ZeroPad" and padding is not None and not isinstance(padding, str):
        return [layers.ZeroPadding2D(padding), *layers_of_row(layers, {**row, "padding": "valid"})]
    match row["kind"]:
        case "Conv" | "DepthwiseConv" | "SeparableConv":
            return [_convolution(layers, row)]
        case "BatchNorm":
            norm = layers.BatchNormalization(momentum=row["momentum"], epsilon=row["epsilon"], name=name)
            return [norm] if row["activation"] == "linear" else [norm, layers.Activation(row["activation"])]
        case "Activate":
            return [layers.Activation(row["activation"], name=name)]
        case "MaxPool" | "AveragePool" | "GlobalAveragePool" | "ZeroPad":
            return [_pool(layers, row)]
        case "PoolLayers":
            return [layers.GlobalAveragePooling2D(), layers.Concatenate(name=name)]
        case "Flatten" | "Dropout":
            return [layers.Flatten(name=name) if row["kind"] == "Flatten" else layers.Dropout(row["rate"], name=name)]
        case "Dense":
            return [layers.Dense(row["features"], activation=row["activation"], name=name)]
    raise ValueError(f"a layer of unknown kind: {row}")


def _convolution(layers: Any, row: dict[str, Any]) -> Any:
    arguments = {key: row[key] for key in ("padding", "activation", "name")} | {"use_bias": row["bias"]}
    match row["kind"]:
        case "Conv":
            return layers.Conv2D(row["features"], row["kernel_size"], row["strides"], **arguments)
        case "DepthwiseConv":
            return layers.DepthwiseConv2D(row["kernel_size"], row["strides"], **arguments)
        case _:
            return layers.SeparableConv2D(row["features"], row["kernel_size"], **arguments)


def _pool(layers: Any, row: dict[str, Any]) -> Any:
    name = row["name"]
    match row["kind"]:
        case "MaxPool":
            return layers.MaxPooling2D(row["size"], row["strides"], row["padding"], name=name)
        case "AveragePool":
            return layers.AveragePooling2D(row["size"], name=name)
        case "GlobalAveragePool":
            return layers.GlobalAveragePooling2D(keepdims=row["keep_axes"], name=name)
        case _:
            return layers.ZeroPadding2D(row["zeros"], name=name)


if __name__ == "__main__":
    serve(build)

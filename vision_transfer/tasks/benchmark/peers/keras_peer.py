"""The worker of a case in Keras on TensorFlow, with its defaults; run by an interpreter that has both.

To be fair to Keras: the batch is a preprocessed float32 tensor, so that no input pipeline is counted (ours casts and
preprocesses uint8 images inside its step); the steps are Keras's own `train_on_batch` and `predict_on_batch`, which
compile the same graph as `fit` and `predict`, with `jit_compile="auto"`; channels come last, as TensorFlow's CPU
kernels expect; frozen layers are `trainable = False` before `compile`, so that no gradient of them is computed.
"""

import os
from typing import Any

from vision_transfer.tasks.benchmark.protocol import Work, serve

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
RATE = 1e-6
KERAS_OPTIMIZERS = {"rmsprop": "RMSprop", "adam": "Adam", "sgd": "SGD"}


def build(request: dict[str, Any]) -> Work:
    """Builds the model of a request from its layer table, compiles it and warms it up."""
    import keras  # pyright: ignore[reportMissingImports, reportMissingModuleSource]
    import tensorflow as tf  # pyright: ignore[reportMissingImports, reportMissingModuleSource]

    if request["precision"] == "bfloat16":
        keras.config.set_dtype_policy("mixed_bfloat16")
    model = keras.Sequential([keras.Input(tuple(request["input_shape"]), batch_size=request["batch"])])
    for row in request["layers"]:
        for layer in _layers(keras, row):
            layer.trainable = row["name"] in request["trainable"]
            model.add(layer)
    shape = (request["batch"], *request["input_shape"])
    inputs = tf.random.stateless_normal(shape, seed=(0, 0))
    inputs = tf.abs(inputs) if request["source"] == "features" else inputs
    labels = tf.range(request["batch"]) % max(2, request["outputs"])
    loss = (
        keras.losses.BinaryCrossentropy(from_logits=True)
        if request["outputs"] == 1
        else keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    optimizer = getattr(keras.optimizers, KERAS_OPTIMIZERS[request["optimizer"]])(RATE)
    model.compile(optimizer=optimizer, loss=loss)
    labels = tf.cast(labels[:, None], tf.float32) if request["outputs"] == 1 else labels

    def run(times: int) -> None:
        for _ in range(times):
            if request["work"] == "forward":
                model.predict_on_batch(inputs)
            else:
                model.train_on_batch(inputs, labels)

    run(2)
    devices = tf.config.list_logical_devices()
    facts = {"device": devices[-1].device_type.lower(), "library": f"keras {keras.__version__}, tf {tf.__version__}"}
    return run, facts, dict


def _layers(keras: Any, row: dict[str, Any]) -> list[Any]:
    layers, name = keras.layers, row["name"]
    match row["kind"]:
        case "Conv":
            arguments = {key: row[key] for key in ("padding", "activation", "name")}
            return [layers.Conv2D(row["features"], row["kernel_size"], **arguments)]
        case "MaxPool":
            return [layers.MaxPooling2D(row["size"], name=name)]
        case "BatchNorm":
            norm = layers.BatchNormalization(momentum=row["momentum"], epsilon=row["epsilon"], name=name)
            return [norm, layers.Activation(row["activation"])]
        case "GlobalAveragePool":
            return [layers.GlobalAveragePooling2D(name=name)]
        case "Flatten":
            return [layers.Flatten(name=name)]
        case "Dense":
            return [layers.Dense(row["features"], activation=row["activation"], name=name)]
        case "Dropout":
            return [layers.Dropout(row["rate"], name=name)]
    raise ValueError(f"a layer of unknown kind: {row}")


if __name__ == "__main__":
    serve(build)

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
KERAS_OPTIMIZERS = {"rmsprop": "RMSprop", "adam": "Adam", "sgd": "SGD"}


def build(request: dict[str, Any]) -> Work:
    """Builds the model of a request, compiles it and warms it up."""
    backend = os.environ["KERAS_BACKEND"] = request["variant"] or TENSORFLOW
    import keras  # pyright: ignore[reportMissingImports, reportMissingModuleSource]
    import numpy as np

    below = importlib.import_module(backend)
    if request["precision"] == "bfloat16":
        keras.config.set_dtype_policy("mixed_bfloat16")
    images = keras.Input(tuple(request["input_shape"]), batch_size=request["batch"])
    model = keras.Model(images, connected(keras, request, images))
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


def connected(keras: Any, request: dict[str, Any], images: Any) -> Any:
    """The logits of a request's layers, which are those of our export to Keras, for a symbolic input."""
    outputs = {"images": images}
    logits = images
    for one in request["keras_layers"]:
        name = one["config"]["name"]
        layer = getattr(keras.layers, one["class_name"]).from_config(one["config"])
        layer.trainable = name in request["trainable"]
        inputs = [outputs[earlier] for earlier in one["inputs"]]
        is_fixed = one["class_name"] == "BatchNormalization" and name in request["inference_layers"]
        options = {"training": False} if is_fixed else {}
        outputs[name] = logits = layer(inputs if len(inputs) > 1 else inputs[0], **options)
    return logits


if __name__ == "__main__":
    serve(build)

"""The worker of whole runs in Keras on TensorFlow; run by an interpreter that has both.

The book's recipe is edition 2's (Chollet, "Deep Learning with Python", second edition, listings 8.19 to 8.29): features
of all three splits and then 20 epochs of the head; or, with augmentation, an epoch of the head on the frozen base, and
an epoch with the last four layers of the base unfrozen. `configs/recommended.py` trains a linear layer for 40 epochs on
averaged features. To be fair to Keras: importing libraries and building models are not timed, the weights are random
(no epoch takes longer for it), and `image_dataset_from_directory` reads ahead.
"""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vision_transfer.tasks.benchmark.peers.keras_peer import connected
from vision_transfer.tasks.benchmark.protocol import Work, serve

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
SIZE, BATCH, HIDDEN, DROPOUT = 180, 32, 256, 0.5
HEAD_EPOCHS, UNFROZEN_LAYERS = 20, 4
HEAD_RATE, FINETUNING_RATE = 1e-3, 1e-5
# Of the recommended recipe.
LINEAR_EPOCHS, LINEAR_RATE, L2 = 40, 3e-3, 1e-4


def build(request: dict[str, Any]) -> Work:
    """Prepares a work on the folder `root`.

    These are `extraction`, `augmented_head_epoch` and `augmented_finetuning_epoch`, and `pooled_extraction` by the
    network of `keras_layers` for images of `input_shape`.
    """
    import keras  # pyright: ignore[reportMissingImports, reportMissingModuleSource]
    import tensorflow as tf  # pyright: ignore[reportMissingImports, reportMissingModuleSource]

    work, root = request["work"], Path(request["root"])
    input_shape = request.get("input_shape", (SIZE, SIZE, 3))
    images: Any = keras.Input(input_shape)
    splits = {
        split: keras.utils.image_dataset_from_directory(
            root / split, image_size=input_shape[:2], batch_size=BATCH, label_mode="binary"
        )
        for split in ("train", "validation", "test")
    }
    applications: Any = keras.applications
    if work == "pooled_extraction":
        base = keras.Model(images, connected(keras, request, keras.layers.Rescaling(1 / 127.5, -1.0)(images)))
        linear = keras.layers.Dense(1, activation="sigmoid", kernel_regularizer=keras.regularizers.L2(L2))
        optimizer = keras.optimizers.Adam(LINEAR_RATE)
        run = _extraction(keras, base.predict_on_batch, splits, linear, optimizer, LINEAR_EPOCHS)
    else:
        base = applications.VGG16(weights=None, include_top=False, input_shape=input_shape)
        if work == "extraction":
            head, optimizer = functools.partial(_head, keras), keras.optimizers.RMSprop(HEAD_RATE)
            run = _extraction(
                keras,
                lambda batch: base.predict(applications.vgg16.preprocess_input(batch), verbose=0),
                splits,
                head,
                optimizer,
                HEAD_EPOCHS,
            )
        else:
            run = _augmented_epoch(keras, base, splits, work == "augmented_finetuning_epoch")
    facts = {"device": "cpu", "library": f"keras {keras.__version__}, tf {tf.__version__}"}
    return run, facts, dict


def _extraction(
    keras: Any,
    features_of: Callable[[Any], Any],
    splits: dict[str, Any],
    head: Callable[[Any], Any],
    optimizer: Any,
    epochs: int,
) -> Callable[[int], None]:
    """Features of all splits, and then the head."""
    import numpy as np

    def features(split: Any) -> tuple[Any, Any]:
        pairs = [(features_of(images), labels) for images, labels in split]
        return tuple(np.concatenate(column) for column in zip(*pairs, strict=True))  # pyright: ignore[reportReturnType]

    def run(times: int) -> None:
        for _ in range(times):
            train, validation, test = (features(splits[split]) for split in ("train", "validation", "test"))
            inputs = keras.Input(train[0].shape[1:])
            model = keras.Model(inputs, head(inputs))
            model.compile(loss="binary_crossentropy", optimizer=optimizer)
            model.fit(*train, epochs=epochs, batch_size=BATCH, validation_data=validation, verbose=0)
            model.evaluate(*test, verbose=0)

    return run


def _augmented_epoch(keras: Any, base: Any, splits: dict[str, Any], finetuning: bool) -> Callable[[int], None]:
    base.trainable = finetuning
    for layer in base.layers[:-UNFROZEN_LAYERS]:
        layer.trainable = False
    inputs = keras.Input((SIZE, SIZE, 3))
    augmentation = keras.Sequential(
        [keras.layers.RandomFlip("horizontal"), keras.layers.RandomRotation(0.1), keras.layers.RandomZoom(0.2)]
    )
    outputs = _head(keras, base(keras.applications.vgg16.preprocess_input(augmentation(inputs))))
    model = keras.Model(inputs, outputs)
    rate = FINETUNING_RATE if finetuning else HEAD_RATE
    model.compile(loss="binary_crossentropy", optimizer=keras.optimizers.RMSprop(rate))
    # Builds the graphs, which `fit` would otherwise do in its first epoch.
    model.fit(splits["train"].take(1), validation_data=splits["validation"].take(1), epochs=1, verbose=0)

    def run(times: int) -> None:
        model.fit(splits["train"], validation_data=splits["validation"], epochs=times, verbose=0)

    return run


def _head(keras: Any, features: Any) -> Any:
    hidden = keras.layers.Dense(HIDDEN)(keras.layers.Flatten()(features))
    return keras.layers.Dense(1, activation="sigmoid")(keras.layers.Dropout(DROPOUT)(hidden))


if __name__ == "__main__":
    serve(build)

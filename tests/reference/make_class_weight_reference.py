"""Makes `class_weights.npz` of this folder with Keras 3.15 on TensorFlow 2.21.

Run in an environment with `keras` and `tensorflow-cpu`:

    python make_class_weight_reference.py OUT_DIR
"""

import sys
from pathlib import Path

import keras
import numpy as np

EXAMPLES, BATCH, EPOCHS, SIDE = 10, 4, 3, 2
# Labels of unequal classes; the last batch has two examples.
CASES = {
    "softmax": ([0, 0, 0, 0, 0, 1, 0, 2, 1, 0], (10 / 21, 10 / 6, 10 / 3)),
    "sigmoid": ([0, 0, 0, 1, 0, 0, 0, 0, 1, 0], (10 / 16, 10 / 4)),
}


def class_weight_reference():
    """Parameters, loss and accuracy after each epoch of a linear classifier with `class_weight`, by plain SGD."""
    rng = np.random.default_rng(0)
    out = {"images": rng.integers(0, 256, (EXAMPLES, SIDE, SIDE, 3)).astype("u1")}
    for name, (labels, weights) in CASES.items():
        outputs = 1 if name == "sigmoid" else len(weights)
        layers = keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(outputs)
        model = keras.Sequential([keras.Input((SIDE, SIDE, 3)), *layers])
        kernel = rng.normal(size=(SIDE * SIDE * 3, outputs)).astype("f4")
        model.layers[-1].set_weights([kernel, np.zeros(outputs, "f4")])
        if name == "sigmoid":
            loss, accuracy = (
                keras.losses.BinaryCrossentropy(from_logits=True),
                keras.metrics.BinaryAccuracy(threshold=0),
            )
        else:
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            accuracy = keras.metrics.SparseCategoricalAccuracy()
        model.compile(keras.optimizers.SGD(0.1), loss, metrics=[accuracy])
        kernels, biases, losses, accuracies = [], [], [], []
        for _ in range(EPOCHS):
            history = model.fit(
                out["images"].astype("f4"),
                np.array(labels, "f4" if name == "sigmoid" else "i4"),
                batch_size=BATCH,
                shuffle=False,
                class_weight=dict(enumerate(weights)),
                verbose=0,
            ).history
            weights_now = model.layers[-1].get_weights()
            kernels.append(weights_now[0])
            biases.append(weights_now[1])
            losses.append(history["loss"][0])
            accuracies.append(next(values[0] for key, values in history.items() if "accuracy" in key))
        out |= {
            f"{name}_labels": np.array(labels, "i4"),
            f"{name}_weights": np.array(weights),
            f"{name}_start": kernel,
            f"{name}_kernel": np.stack(kernels),
            f"{name}_bias": np.stack(biases),
            f"{name}_loss": np.array(losses),
            f"{name}_accuracy": np.array(accuracies),
        }
    return out


if __name__ == "__main__":
    np.savez_compressed(Path(sys.argv[1]) / "class_weights.npz", **class_weight_reference())

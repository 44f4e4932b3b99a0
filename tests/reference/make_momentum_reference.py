"""Makes `momentum.npz` of this folder with Keras 3.15 on TensorFlow 2.21.

Run in an environment with `keras` and `tensorflow-cpu`:

    python make_momentum_reference.py OUT_DIR
"""

import sys
from pathlib import Path

import keras
import numpy as np

STEPS, WEIGHTS = 12, 5
CASES = {
    "sgd": lambda: keras.optimizers.SGD(momentum=0.9),
    "rmsprop": lambda: keras.optimizers.RMSprop(momentum=0.9),
    "sgd_decayed": lambda: keras.optimizers.SGD(momentum=0.9, weight_decay=0.1),
}


def momentum_reference():
    """Paths of optimizers with momentum, given gradients, at a rate that rises, falls and is 0 for a step."""
    rng = np.random.default_rng(0)
    out = {
        "w0": rng.normal(size=WEIGHTS).astype("f4"),
        "grads": rng.normal(size=(STEPS, WEIGHTS)).astype("f4"),
        "rates": np.array([1e-3, 5e-3, 1e-2, 5e-2, 5e-2, 1e-2, 3e-3, 1e-3, 0, 1e-4, 2e-2, 1e-3], "f4"),
    }
    for name, make in CASES.items():
        optimizer, weights, path = make(), keras.Variable(out["w0"]), []
        optimizer.build([weights])
        for rate, gradient in zip(out["rates"], out["grads"], strict=True):
            optimizer.learning_rate.assign(rate)
            optimizer.apply([keras.ops.convert_to_tensor(gradient)], [weights])
            path.append(keras.ops.convert_to_numpy(weights).copy())
        out[name] = np.stack(path)
    return out


if __name__ == "__main__":
    np.savez_compressed(Path(sys.argv[1]) / "momentum.npz", **momentum_reference())

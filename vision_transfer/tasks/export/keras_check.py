"""Runs a Keras file on images: `python keras_check.py MODEL IMAGES.npy ANSWER.npz`.

This is a script that imports nothing from this package, since Keras may be installed for another interpreter, and it
would set JAX up in its own way, with one backend per process.
"""

import sys
from typing import Any

import numpy as np


def check(model_file: str, images_file: str, answer_file: str) -> None:
    """Writes the model's `probabilities`, its `logits` (the output of the last layer but one) and Keras's `version`."""
    import keras  # pyright: ignore[reportMissingImports]

    model: Any = keras.saving.load_model(model_file, compile=False)
    # A Sequential has no inputs before it is built, which loading does.
    both: Any = keras.Model(model.inputs, [model.outputs[0], model.layers[-2].output])
    probabilities, logits = both.predict(np.load(images_file), batch_size=16, verbose=0)
    version = f"{keras.__version__}, {keras.backend.backend()}"
    np.savez(answer_file, probabilities=probabilities, logits=logits, version=np.array(version))


if __name__ == "__main__":
    check(*sys.argv[1:])

"""Compares exported files with the run's own predictions; the library that a file is for loads and runs it."""

import os
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from jaxtyping import Float, Float32

from vision_transfer.errors import UserError
from vision_transfer.runtime.jax_setup import environment_of_others
from vision_transfer.tasks.export import keras_check

# Largest allowed difference of a probability.
TOLERANCE = 1e-4
BATCH = 16
OUTPUTS = ["probabilities", "logits"]
# Names another interpreter, which has Keras.
KERAS_PYTHON_VARIABLE = "VISION_TRANSFER_KERAS_PYTHON"


@dataclass(frozen=True)
class Answer:
    """The output of a network for images."""

    probabilities: Float[np.ndarray, "images classes"]
    logits: Float[np.ndarray, "images outputs"]


@dataclass(frozen=True)
class Agreement:
    """The largest differences between the answers of a file and of the run, by a library and its version.

    All but the file's name are None if that library is not installed.
    """

    file: str
    library: str | None = None
    probabilities: float | None = None
    logits: float | None = None


def agreement(file: Path, images: Float32[np.ndarray, "images height width channels"], own: Answer) -> Agreement:
    """Runs a file on images and compares its answer with the run's own.

    Raises:
        UserError: the file does not load, or its probabilities differ by more than `TOLERANCE`.
    """
    run = {".stablehlo": _by_jax, ".onnx": _by_onnxruntime, ".keras": _by_keras, ".h5": _by_keras}[file.suffix]
    found = run(file, images)
    if found is None:
        return Agreement(file.name)
    library, answer = found
    differences = [
        float(np.max(np.abs(theirs - ours)))
        for theirs, ours in ((answer.probabilities, own.probabilities), (answer.logits, own.logits))
    ]
    if not differences[0] <= TOLERANCE:
        raise UserError(
            f"{file.name}: its probabilities, computed by {library}, differ from the run's own by up to "
            f"{differences[0]:.2g}; allowed is {TOLERANCE:g}. This is a bug in this program or in that library; "
            "choose other formats with --format"
        )
    return Agreement(file.name, library, *differences)


def _by_jax(file: Path, images: np.ndarray) -> tuple[str, Answer] | None:
    import jax
    from jax import export

    program = export.deserialize(bytearray(file.read_bytes()))
    parts = [program.call(images[start : start + BATCH]) for start in range(0, len(images), BATCH)]
    probabilities, logits = (np.concatenate([part[name] for part in parts]) for name in OUTPUTS)
    return f"JAX {jax.__version__}", Answer(probabilities, logits)


def _by_onnxruntime(file: Path, images: np.ndarray) -> tuple[str, Answer] | None:
    if find_spec("onnxruntime") is None:
        return None
    import onnxruntime  # pyright: ignore[reportMissingImports]

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    parts = [session.run(OUTPUTS, {"images": images[i : i + BATCH]}) for i in range(0, len(images), BATCH)]
    answer = Answer(*(np.concatenate(values) for values in zip(*parts, strict=True)))
    return f"ONNX Runtime {metadata.version('onnxruntime')}", answer


def _by_keras(file: Path, images: np.ndarray) -> tuple[str, Answer] | None:
    """Runs Keras in another process, since it has one backend per process and would set JAX up in its own way."""
    interpreter = os.environ.get(KERAS_PYTHON_VARIABLE)
    if interpreter is None and find_spec("keras") is None:
        return None
    environment = environment_of_others(os.environ)
    if interpreter is None:
        environment = {"KERAS_BACKEND": "jax"} | environment
    with TemporaryDirectory() as folder:
        inputs, outputs = Path(folder, "images.npy"), Path(folder, "answer.npz")
        np.save(inputs, images)
        command = [interpreter or sys.executable, "-P", keras_check.__file__, str(file), str(inputs), str(outputs)]
        done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise UserError(f"{file.name}: Keras cannot run it: {last}")
        with np.load(outputs, allow_pickle=False) as arrays:
            return f"Keras {arrays['version']}", Answer(arrays["probabilities"], arrays["logits"])

"""Whether exported files give a run's own predictions: each is loaded and run by the library that it is for."""

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

# Largest difference of a probability.
TOLERANCE = 1e-4
BATCH = 16
# Whoever has Keras elsewhere names that interpreter here.
KERAS_PYTHON_VARIABLE = "VISION_TRANSFER_KERAS_PYTHON"


@dataclass(frozen=True)
class Answer:
    """What a network says of images: `(images, classes)` probabilities and `(images, outputs)` logits."""

    probabilities: Float[np.ndarray, "images classes"]
    logits: Float[np.ndarray, "images outputs"]


@dataclass(frozen=True)
class Agreement:
    """How a file compares with the run's own predictions.

    Attributes:
        file: its name.
        library: that ran it, with its version; None where it is not installed.
        probabilities: largest difference; None likewise.
        logits: largest difference; None likewise.
    """

    file: str
    library: str | None = None
    probabilities: float | None = None
    logits: float | None = None


def agreement(file: Path, images: Float32[np.ndarray, "images height width channels"], own: Answer) -> Agreement:
    """Loads a file and compares what it says of images with what the run says.

    Raises:
        UserError: it does not load, or says something else.
    """
    found = {".stablehlo": _by_jax, ".onnx": _by_onnxruntime, ".keras": _by_keras, ".h5": _by_keras}[file.suffix](
        file, images
    )
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
            f"{differences[0]:.2g}; allowed is {TOLERANCE:g}. That is a fault of this program or of that library; "
            "--format leaves the file out"
        )
    return Agreement(file.name, library, *differences)


def _by_jax(file: Path, images: np.ndarray) -> tuple[str, Answer] | None:
    import jax
    from jax import export

    program = export.deserialize(bytearray(file.read_bytes()))
    parts = [program.call(images[start : start + BATCH]) for start in range(0, len(images), BATCH)]
    joined = {name: np.concatenate([part[name] for part in parts]) for name in ("probabilities", "logits")}
    return f"JAX {jax.__version__}", Answer(**joined)


def _by_onnxruntime(file: Path, images: np.ndarray) -> tuple[str, Answer] | None:
    if find_spec("onnxruntime") is None:
        return None
    import onnxruntime  # pyright: ignore[reportMissingImports]

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    names = ["probabilities", "logits"]
    parts = [session.run(names, {"images": images[i : i + BATCH]}) for i in range(0, len(images), BATCH)]
    answer = Answer(*(np.concatenate(values) for values in zip(*parts, strict=True)))
    return f"ONNX Runtime {metadata.version('onnxruntime')}", answer


def _by_keras(file: Path, images: np.ndarray) -> tuple[str, Answer] | None:
    """In a process of its own, since Keras can have one backend in a process and would set JAX up in its own way."""
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
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise UserError(f"{file.name}: Keras does not run it: {last}")
        with np.load(outputs, allow_pickle=False) as arrays:
            return f"Keras {arrays['version']}", Answer(arrays["probabilities"], arrays["logits"])

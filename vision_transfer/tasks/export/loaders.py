"""How each exported file is loaded and run, as the model card shows it."""

from collections.abc import Mapping

# Each ends with `answer`; `images` is the input.
LOADERS: Mapping[str, tuple[str, str]] = {
    "model.stablehlo": (
        "`pip install jax flatbuffers`; a CPU, NVIDIA GPUs, TPUs",
        """\
program = jax.export.deserialize(bytearray(open("model.stablehlo", "rb").read()))
answer = program.call(images)
print(answer["probabilities"], answer["logits"])""",
    ),
    "model.keras": (
        "`pip install keras` and a backend",
        """\
model = keras.saving.load_model("model.keras")
answer = model.predict(images)
print(answer)""",
    ),
    "model.h5": ("the same for Keras 2, too", 'model = keras.models.load_model("model.h5")'),
    "model.onnx": (
        "`pip install onnxruntime`",
        """\
session = onnxruntime.InferenceSession("model.onnx")
probabilities, logits = session.run(["probabilities", "logits"], {"images": images})
print(probabilities, logits)""",
    ),
}
IMPORTS = {
    "model.stablehlo": "import jax.export",
    "model.keras": "import keras",
    "model.onnx": "import onnxruntime",
}


def loader(file: str, input_shape: tuple[int, int, int]) -> tuple[str, str]:
    """What a file needs, and the lines that load and run it on two black images."""
    needs, lines = LOADERS[file]
    if file not in IMPORTS:
        return needs, lines
    images = f"images = numpy.zeros((2, {', '.join(map(str, input_shape))}), numpy.float32)"
    return needs, "\n".join([IMPORTS[file], "import numpy", "", images, lines])

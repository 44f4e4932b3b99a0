"""The worker of a forward pass in ONNX Runtime, with its defaults, on the file that this program exports.

The file takes float32 images of 0–255 and preprocesses them; ours takes uint8 images and casts them too.
"""

from typing import Any

from vision_transfer.tasks.benchmark.protocol import Work, serve


def build(request: dict[str, Any]) -> Work:
    """Loads the file `model` of a request and warms it up."""
    import numpy as np
    import onnxruntime  # pyright: ignore[reportMissingImports]

    session = onnxruntime.InferenceSession(request["model"], providers=onnxruntime.get_available_providers())
    shape = (request["batch"], *request["input_shape"])
    images = np.random.default_rng(0).integers(0, 256, shape).astype(np.float32)

    def run(times: int) -> None:
        for _ in range(times):
            session.run(["logits"], {"images": images})

    run(2)
    facts = {"device": onnxruntime.get_device().lower(), "library": f"onnxruntime {onnxruntime.__version__}"}
    return run, facts, dict


if __name__ == "__main__":
    serve(build)

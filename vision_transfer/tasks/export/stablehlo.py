"""One StableHLO program for CPUs, GPUs and TPUs, with its parameters inside, by `jax.export`."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vision_transfer.errors import UserError
from vision_transfer.models.network import Network, Params, apply
from vision_transfer.models.precision import FLOAT32

PLATFORMS = ("cpu", "cuda", "tpu")


def stablehlo(network: Network, variables: dict[str, Params], temperature: float) -> bytes:
    """The serialised program: `(batch, height, width, channels) float32` images of 0–255, for any batch from 1.

    It returns a dictionary: `probabilities` `(batch, classes)` and `logits` `(batch, outputs)`, float32. Convolutions
    are XLA's own, since the fast ones plan for one batch size.

    Raises:
        UserError: flatbuffers is not installed.
    """
    from jax import export

    _require_flatbuffers()
    network = replace(network, numerics=FLOAT32)
    variables = {name: variables[name] for name in ("params", "batch_stats")}

    def predict(images: Float[Array, "batch height width channels"]) -> dict[str, Array]:
        logits = apply(network, variables, images)
        arguments = logits if network.outputs > 1 else jnp.concatenate([jnp.zeros_like(logits), logits], axis=1)
        return {"probabilities": jax.nn.softmax(arguments / np.float32(temperature)), "logits": logits}

    (batch,) = export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, *network.input_shape), jnp.float32)
    exported = export.export(jax.jit(predict), platforms=PLATFORMS)(images)
    return bytes(exported.serialize())


def _require_flatbuffers() -> None:
    try:
        import flatbuffers  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ImportError as error:
        raise UserError(
            "--format=stablehlo: jax.export writes with flatbuffers, which is not installed: "
            "pip install 'vision_transfer[export]'; or leave it out with --format=keras,onnx"
        ) from error

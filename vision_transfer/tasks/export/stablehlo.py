"""A StableHLO program for CPUs, GPUs and TPUs that contains its parameters, written by `jax.export`."""

from dataclasses import replace
from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vision_transfer.errors import UserError
from vision_transfer.models.network import Network, Params, apply
from vision_transfer.models.precision import FLOAT32
from vision_transfer.runtime.program import install_extra

PLATFORMS = ("cpu", "cuda", "tpu")


def stablehlo(network: Network, variables: dict[str, Params], temperature: float) -> bytes:
    """The serialised program; it takes `(batch, height, width, channels) float32` images of 0–255, for any batch size.

    It returns a dictionary: `probabilities` `(batch, classes)` and `logits` `(batch, outputs)`, float32. Convolutions
    are XLA's own, since the faster ones are planned for one batch size.

    Raises:
        UserError: flatbuffers is not installed.
    """
    from jax import export

    if find_spec("flatbuffers") is None:
        raise UserError(
            "--format=stablehlo: jax.export needs flatbuffers, which is not installed: "
            f"{install_extra('export')}; or leave this format out with --format=keras,onnx"
        )
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

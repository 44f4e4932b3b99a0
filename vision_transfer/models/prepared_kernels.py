"""Kernels of frozen layers in the form in which a CPU's fast convolution uses them, made once and not in every step."""

from functools import partial

import jax
from jaxtyping import Array

from vision_transfer.models.layers import Conv, Padding
from vision_transfer.models.network import Network, Params
from vision_transfer.models.ops.convolution import prepare_kernel, uses_winograd


def prepared_kernels(
    network: Network, frozen: Params, *, batch: int, start: str | None = None, stop: str | None = None
) -> Params:
    """The collection `prepared` for the layers from `start` to `stop` whose kernels are in `frozen`.

    Args:
        network: the tables.
        frozen: parameters that will not change.
        batch: examples on each device per step.
        start: first layer that runs; None for the first of all.
        stop: last layer that runs; None for the last of all.
    """
    platform = jax.default_backend()
    shapes = dict(zip(network.layers, network.shapes, strict=False))
    prepared: Params = {}
    for layer in network.between(start, stop):
        kernel = frozen.get(layer.name, {}).get("kernel") if isinstance(layer, Conv) else None
        shape = (batch, *shapes[layer])
        if (
            isinstance(layer, Conv)
            and kernel is not None
            and uses_winograd(shape, kernel.shape, layer.padding, platform)
        ):
            prepared[layer.name] = {"kernel": _prepare(kernel, shape, layer.padding)}
    return prepared


@partial(jax.jit, static_argnames=("image_shape", "padding"))
def _prepare(kernel: Array, image_shape: tuple[int, ...], padding: Padding) -> Array:
    return prepare_kernel(kernel, image_shape, padding)

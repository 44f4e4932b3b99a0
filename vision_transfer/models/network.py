"""A network: a backbone table, a head table and their input; initialised, and applied from any layer to any layer."""

import math
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, Real

from vision_transfer.errors import UserError, nearest_names
from vision_transfer.models.layer_stack import LayerStack
from vision_transfer.models.layers import Conv, Layer, Padding, layer_names, output_shape, parameter_shapes
from vision_transfer.models.ops.convolution import prepare_kernel, uses_winograd
from vision_transfer.models.precision import FLOAT32, Numerics
from vision_transfer.models.preprocessing import Preprocessing, preprocess

# layer name -> parameter name -> array
Params = dict[str, dict[str, Any]]
# Flax's collections: `params`, `batch_stats` (running statistics), `prepared` (transformed kernels of frozen layers)
Variables = Mapping[str, Params]


@dataclass(frozen=True)
class Network:
    """A network as plain data; hashable, so that it can be a static argument of a jitted function.

    The backbone is the table of the pretrained or reusable part, the head that of the part that is new for each task;
    `preprocessing` is applied to pixels of 0–255 before the first layer.
    """

    backbone: tuple[Layer, ...]
    head: tuple[Layer, ...]
    input_shape: tuple[int, int, int]
    preprocessing: Preprocessing = "raw"
    numerics: Numerics = FLOAT32

    def __post_init__(self) -> None:
        """Refuses tables in which two layers have one name, and images that are too small."""
        names = layer_names(self.layers)
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise UserError(f"the layer table has more than one layer named {', '.join(twice)}")
        _ = self.shapes

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Backbone and head."""
        return self.backbone + self.head

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shape of one example before each layer and, last, after the last one."""
        shapes: list[tuple[int, ...]] = [self.input_shape]
        for layer in self.layers:
            shapes.append(output_shape(layer, shapes[-1]))
        return tuple(shapes)

    @property
    def outputs(self) -> int:
        """Number of logits: 1 for a sigmoid."""
        return self.shapes[-1][-1]

    def index(self, name: str) -> int:
        """Position of a layer in the table.

        Raises:
            UserError: there is no such layer.
        """
        names = layer_names(self.layers)
        if name not in names:
            raise UserError(f"no layer {name!r} in this network; {nearest_names(name, names)}")
        return names.index(name)

    def after(self, name: str) -> str:
        """The name of the layer that follows another, which is not the last."""
        return self.layers[self.index(name) + 1].name

    def between(self, start: str | None = None, stop: str | None = None) -> tuple[Layer, ...]:
        """The layers from `start` to `stop`, both included; None means the first and the last."""
        first = 0 if start is None else self.index(start)
        return self.layers[first:] if stop is None else self.layers[first : self.index(stop) + 1]

    def shape_after(self, name: str) -> tuple[int, ...]:
        """Shape of the output of a layer for one example."""
        return self.shapes[self.index(name) + 1]


def all_parameter_shapes(
    network: Network, layers: tuple[Layer, ...] | None = None
) -> dict[str, dict[str, tuple[int, ...]]]:
    """Shapes of the parameters by layer, in network order, of all layers (default) or some."""
    wanted = network.layers if layers is None else layers
    found = {
        layer.name: parameter_shapes(layer, shape)
        for layer, shape in zip(network.layers, network.shapes, strict=False)
        if layer in wanted
    }
    return {layer: parameters for layer, parameters in found.items() if parameters}


def init(network: Network, key: Key[Array, ""]) -> dict[str, Params]:
    """Fresh variables, float32 numpy arrays: Keras's Glorot uniform kernels and zero biases.

    Each layer's draw depends only on the key and its name. The bits come from numpy's Philox, since JAX takes 6 s to
    compile the drawing of 16 kernels of different shapes.
    """
    params: Params = {}
    batch_stats: Params = {}
    for layer, shapes in all_parameter_shapes(network).items():
        params[layer] = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
        if "kernel" in shapes:
            params[layer]["kernel"] = _glorot_uniform(key, layer, shapes["kernel"])
        if "scale" in shapes:
            params[layer]["scale"] += 1
            features = shapes["scale"]
            batch_stats[layer] = {"mean": np.zeros(features, np.float32), "variance": np.ones(features, np.float32)}
    return {"params": params, "batch_stats": batch_stats}


def _glorot_uniform(key: Key[Array, ""], layer: str, shape: tuple[int, ...]) -> Float[np.ndarray, "..."]:
    """Uniform in ±√(6 / (fan in + fan out)) (Glorot and Bengio 2010; keras/src/initializers/random_initializers.py)."""
    words = [int(word) for word in np.ravel(jax.random.key_data(key))]
    seed = sum(word << (32 * place) for place, word in enumerate(words[:2]))
    bits = np.random.Philox(key=np.array([seed, zlib.crc32(layer.encode())], np.uint64)).random_raw(math.prod(shape))
    field = math.prod(shape[:-2])
    limit = math.sqrt(6 / (field * (shape[-2] + shape[-1])))
    # a float32 holds 24 bits
    uniform = (bits >> np.uint64(40)).astype(np.float32) * np.float32(2**-23) - 1
    return (uniform * np.float32(limit)).reshape(shape)


def apply(
    network: Network,
    variables: Variables,
    inputs: Real[Array, "batch ..."],
    *,
    start: str | None = None,
    stop: str | None = None,
) -> Float[Array, "batch ..."]:
    """Inference: runs the layers from `start` to `stop`, both included; by default all, which gives logits.

    Without `start`, inputs are images with values 0–255, which are preprocessed first. `variables` are those of at
    least the layers that run: `params` and, with batch norms, `batch_stats`.

    Returns:
        `(batch, ...)`, the output of `stop`: float32, or bfloat16 if the network computes in it and these are not
        logits.
    """
    stack, values = _stack_and_inputs(network, inputs, start, stop)
    outputs: Any = stack.apply(_of_layers(variables, stack.layers), values)
    return outputs.astype(jnp.float32) if stop is None else outputs


def apply_train(
    network: Network,
    variables: Variables,
    inputs: Real[Array, "batch ..."],
    *,
    start: str | None,
    example_keys: Key[Array, "batch"],
    example_weights: Float[Array, "batch"],
    inference_layers: frozenset[str] = frozenset(),
    batch_axis: str | None = None,
) -> tuple[Float[Array, "batch outputs"], Params]:
    """Logits in training mode and the batch statistics after it; see `LayerStack` for the arguments."""
    stack, values = _stack_and_inputs(network, inputs, start, None, inference_layers, batch_axis)
    logits, updated = cast(
        tuple[Array, dict[str, Params]],
        stack.apply(
            _of_layers(variables, stack.layers),
            values,
            example_keys=example_keys,
            example_weights=example_weights,
            mutable=["batch_stats"],
        ),
    )
    return logits.astype(jnp.float32), dict(variables.get("batch_stats", {})) | dict(updated.get("batch_stats", {}))


def outputs_at(
    network: Network, variables: Variables, inputs: Real[Array, "batch ..."], layers: Sequence[str]
) -> Iterator[Float[Array, "batch ..."]]:
    """Outputs of several layers for images, in the order of the network; each layer is computed once."""
    start = None
    for layer in layers:
        inputs = apply(network, variables, inputs, start=start, stop=layer)
        yield inputs
        if layer != layers[-1]:
            start = network.after(layer)


def prepared_kernels(
    network: Network, frozen: Params, *, batch: int, start: str | None = None, stop: str | None = None
) -> Params:
    """The collection `prepared` for the layers from `start` to `stop` whose kernels are in `frozen`.

    These are the kernels that a CPU's fast convolution uses in another form, transformed once and not in every step.
    `batch` is the number of examples on each device per step.
    """
    platform = jax.default_backend()
    shapes = dict(zip(network.layers, network.shapes, strict=False))
    prepared: Params = {}
    for layer in network.between(start, stop):
        kernel = frozen.get(layer.name, {}).get("kernel")
        if not isinstance(layer, Conv) or kernel is None:
            continue
        shape = (batch, *shapes[layer])
        if uses_winograd(shape, kernel.shape, layer.padding, platform):
            prepared[layer.name] = {"kernel": _prepare(kernel, shape, layer.padding)}
    return prepared


@partial(jax.jit, static_argnames=("image_shape", "padding"))
def _prepare(kernel: Array, image_shape: tuple[int, ...], padding: Padding) -> Array:
    return prepare_kernel(kernel, image_shape, padding)


def params_of(layers: Iterable[Layer], params: Params) -> Params:
    """The part of a tree `layer -> parameter -> array` that belongs to some layers, in the order of the tree."""
    names = set(layer_names(layers))
    return {layer: leaves for layer, leaves in params.items() if layer in names}


def count(params: Params) -> int:
    """Number of scalars."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))


def _stack_and_inputs(
    network: Network,
    inputs: Array,
    start: str | None,
    stop: str | None,
    inference_layers: frozenset[str] = frozenset(),
    batch_axis: str | None = None,
) -> tuple[LayerStack, Array]:
    values = preprocess(inputs, network.preprocessing) if start is None else inputs
    return LayerStack(network.between(start, stop), network.numerics, inference_layers, batch_axis), values


def _of_layers(variables: Variables, layers: tuple[Layer, ...]) -> dict[str, Params]:
    return {collection: params_of(layers, by_layer) for collection, by_layer in variables.items()}

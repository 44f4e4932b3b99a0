"""A network: a backbone table, a head table and their input; initialised, and applied from any layer to any layer."""

import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, Real

from vision_transfer.errors import UserError, nearest_names
from vision_transfer.models.layer_stack import LayerStack
from vision_transfer.models.layers import (
    BatchNorm,
    Block,
    Conv,
    Layer,
    PoolLayers,
    Row,
    has_blocks,
    is_light,
    layer_names,
    layers_of,
    norms_after,
)
from vision_transfer.models.ops.convolution import prepare_kernel, uses_winograd
from vision_transfer.models.ops.microbatch import EARLY_POSITIONS, POSITIONS, map_on_cpu
from vision_transfer.models.ops.tiling import Padding
from vision_transfer.models.precision import FLOAT32, Numerics
from vision_transfer.models.preprocessing import Preprocessing, preprocess
from vision_transfer.models.shapes import Place, Shape, parameter_shapes, places

# Behind maps of an eighth of the images' width, maps need little memory, and products need more images to be efficient.
EARLY_SCALE = 8
MAP_AXES = 3
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

    backbone: tuple[Row, ...]
    head: tuple[Row, ...]
    input_shape: tuple[int, int, int]
    preprocessing: Preprocessing = "raw"
    numerics: Numerics = FLOAT32

    def __post_init__(self) -> None:
        """Refuses tables in which two layers have one name or one has a slash, and images that are too small."""
        names = layer_names(self.layers)
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise UserError(f"the layer table has more than one layer named {', '.join(twice)}")
        if slashed := [name for name in names if "/" in name]:
            raise UserError(f"the layer table has a layer named {slashed[0]!r}; a name must not contain a slash")
        _ = self.places

    @property
    def rows(self) -> tuple[Row, ...]:
        """The rows of backbone and head, between which the network can be cut."""
        return self.backbone + self.head

    @property
    def layers(self) -> tuple[Layer, ...]:
        """All layers, those inside blocks included, in Keras's order."""
        return layers_of(self.rows)

    @property
    def places(self) -> tuple[Place, ...]:
        """All layers with their shapes, in Keras's order."""
        return _places(self.rows, self.input_shape)

    @property
    def outputs(self) -> int:
        """Number of logits: 1 for a sigmoid."""
        return self.places[-1].output[-1]

    def index(self, name: str) -> int:
        """Position of a row in the table.

        Raises:
            UserError: there is no such row.
        """
        names = layer_names(self.rows)
        if name in names:
            return names.index(name)
        inside = next((place.entry for place in self.places if place.layer.name == name), None)
        if inside is not None:
            raise UserError(f"layer {name!r} is inside the block {inside!r}, which runs as a whole; name the block")
        raise UserError(f"no layer {name!r} in this network; {nearest_names(name, names)}")

    def after(self, name: str) -> str:
        """The name of the row that follows another, which is not the last."""
        return self.rows[self.index(name) + 1].name

    def start_before(self, position: int) -> int:
        """The last position, at most `position`, from which on the rows need no other output than the one before them.

        It differs from `position` only where a row behind it pools the output of one before it.
        """
        pooled = [
            self.index(name) for row in self.rows[position:] if isinstance(row, PoolLayers) for name in row.layers
        ]
        first = min([position, *pooled])
        return position if first == position else self.start_before(first)

    def between(self, start: str | None = None, stop: str | None = None) -> tuple[Row, ...]:
        """The rows from `start` to `stop`, both included; None means the first and the last."""
        first = 0 if start is None else self.index(start)
        return self.rows[first:] if stop is None else self.rows[first : self.index(stop) + 1]

    def shape_before(self, name: str) -> Shape:
        """Shape of the input of a row for one example."""
        position = self.index(name)
        return self.input_shape if position == 0 else self.shape_after(self.rows[position - 1].name)

    def shape_after(self, name: str) -> Shape:
        """Shape of the output of a row, or of a layer inside a block, for one example."""
        by_layer = {place.layer.name: place.output for place in self.places}
        by_entry = {place.entry: place.output for place in self.places}
        return by_layer[name] if name in by_layer else by_entry[self.rows[self.index(name)].name]


# A network of blocks asks for its places many times in every epoch.
@lru_cache(maxsize=256)
def _places(rows: tuple[Row, ...], shape: Shape) -> tuple[Place, ...]:
    return places(rows, shape)


def all_parameter_shapes(network: Network) -> dict[str, dict[str, tuple[int, ...]]]:
    """Shapes of the parameters by layer, in network order."""
    found = {place.layer.name: parameter_shapes(place.layer, place.before) for place in network.places}
    return {layer: parameters for layer, parameters in found.items() if parameters}


def is_kernel(name: str) -> bool:
    """Whether a parameter of this name is a kernel; those of a separable convolution are two."""
    return name.endswith("kernel")


def init(
    network: Network, key: Key[Array, ""], given: Mapping[str, Mapping[str, Any]] | None = None
) -> dict[str, Params]:
    """Fresh variables, float32 numpy arrays: Keras's Glorot uniform kernels and zero biases.

    Each layer's draw depends only on the key and its name. The bits come from numpy's Philox, since JAX takes 6 s to
    compile the drawing of 16 kernels of different shapes. The parameters of layers in `given` are taken from there.
    """
    params: Params = {}
    batch_stats: Params = {}
    for layer, shapes in all_parameter_shapes(network).items():
        if given is not None and layer in given:
            params[layer] = dict(given[layer])
        else:
            params[layer] = {name: _initial(key, layer, name, shape) for name, shape in shapes.items()}
        if "scale" in shapes:
            features = shapes["scale"]
            batch_stats[layer] = {"mean": np.zeros(features, np.float32), "variance": np.ones(features, np.float32)}
    return {"params": params, "batch_stats": batch_stats}


def _initial(key: Key[Array, ""], layer: str, name: str, shape: tuple[int, ...]) -> Float[np.ndarray, "..."]:
    if is_kernel(name):
        return _glorot_uniform(key, layer if name == "kernel" else f"{layer}/{name}", shape)
    return np.full(shape, name == "scale", np.float32)


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
    early = _early_rows(network, stack.rows)
    if early:
        positions = POSITIONS
        if not is_light(early):
            positions = math.prod(values.shape[1:3]) * max(1, EARLY_POSITIONS // math.prod(network.input_shape[:2]))
        values = map_on_cpu(partial(_infer, network, stack.clone(rows=early), variables), values, positions)
    late = stack.rows[len(early) :]
    outputs = _infer(network, stack.clone(rows=late), variables, values) if late else values
    return outputs.astype(jnp.float32) if stop is None else outputs


def _infer(network: Network, stack: LayerStack, variables: Variables, values: Array) -> Array:
    own = _of_rows(variables, stack.rows)
    last = stack.rows[-1].name
    if last in own.get("prepared", {}) and last in norms_after(network.rows):
        # its norm is not among these rows, and may be part of its prepared kernel
        own["prepared"] = {layer: leaves for layer, leaves in own["prepared"].items() if layer != last}
    return cast(Array, stack.apply(own, values))


def apply_frozen(
    network: Network, variables: Variables, inputs: Real[Array, "batch ..."], *, start: str | None, cut: str | None
) -> tuple[Real[Array, "batch ..."], str | None]:
    """Takes inputs of `start` through those rows before `cut` that a CPU computes for some images at a time.

    Returns:
        The inputs of the rows that are left, and the first of these.
    """
    first = network.index(start or network.rows[0].name)
    position = 0 if cut is None else network.start_before(network.index(cut))
    early = _early_rows(network, network.rows[first:position])
    if not early:
        return inputs, start
    return apply(network, variables, inputs, start=start, stop=early[-1].name), network.after(early[-1].name)


def trains_in_parts(network: Network, start: str | None, inference_layers: frozenset[str]) -> bool:
    """Whether a CPU takes some images at a time through the rows from `start` on, which must not mix images.

    DenseNet121, a step of everything, 16 images of 224 pixels on one core: 11.3 s and 435 MB beside parameters by two
    images at a time, 13.3 s and 2,820 MB otherwise.
    """
    rows = network.between(start)
    norms = {layer.name for layer in layers_of(rows) if isinstance(layer, BatchNorm)}
    first = next(place for place in network.places if place.entry == rows[0].name)
    takes_maps = len(first.inputs[0]) == MAP_AXES  # a head with blocks may start at averages
    return takes_maps and (is_light(rows) or has_blocks(rows)) and norms <= inference_layers


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
            _of_rows(variables, stack.rows),
            values,
            example_keys=example_keys,
            example_weights=example_weights,
            mutable=["batch_stats"],
        ),
    )
    return logits.astype(jnp.float32), dict(variables.get("batch_stats", {})) | dict(updated.get("batch_stats", {}))


def apply_watching(
    network: Network,
    variables: Variables,
    images: Real[Array, "batch height width channels"],
    layers: Sequence[str],
    perturbations: Mapping[str, Array] | None = None,
) -> tuple[Float[Array, "batch outputs"], dict[str, Float[Array, "batch ..."]]]:
    """Inference that also gives the outputs of layers, wherever they are; the name of a block stands for its merge.

    A perturbation of a layer is added to its output. The gradient with respect to it, at zero, is that of the output.

    Returns:
        Logits, and the output of each of the layers by name.
    """
    stack, values = _stack_and_inputs(network, images, None, None)
    merges = {row.name: row.merge.name for row in network.rows if isinstance(row, Block)}
    leaves = {name: merges.get(name, name) for name in layers}
    # Prepared kernels may contain the norm after a convolution that is watched.
    collections = {name: params for name, params in variables.items() if name in ("params", "batch_stats")}
    added = {leaves[name]: values for name, values in (perturbations or {}).items()}
    logits, kept = cast(
        tuple[Array, dict[str, dict[str, dict[str, Array]]]],
        stack.clone(watched=frozenset(leaves.values())).apply(
            {**_of_rows(collections, stack.rows), "perturbations": added}, values, mutable=["watched"]
        ),
    )
    outputs = kept["watched"]["outputs"]
    return logits.astype(jnp.float32), {name: outputs[leaf] for name, leaf in leaves.items()}


def prepared_kernels(
    network: Network,
    frozen: Variables,
    *,
    batch: int,
    start: str | None = None,
    stop: str | None = None,
    inference_layers: frozenset[str] | None = None,
) -> Params:
    """The collection `prepared` for the rows from `start` to `stop` whose kernels are in `frozen["params"]`.

    These are the kernels that a CPU's fast convolution uses in another form, transformed once and not in every step.
    A batch norm after the convolution is part of the kernel where it is in inference mode: all are (None), or
    `inference_layers`. `batch` is the number of examples on each device per step.
    """
    if network.numerics.dtype != jnp.float32:  # no other has a fast convolution
        return {}
    platform = jax.default_backend()
    rows = network.between(start, stop)
    here, norms = set(layers_of(rows)), norms_after(rows)
    params, batch_stats = frozen["params"], frozen.get("batch_stats", {})
    prepared: Params = {}
    for place in network.places:
        layer, kernel = place.layer, params.get(place.layer.name, {}).get("kernel")
        if not isinstance(layer, Conv) or layer not in here or layer.strides != 1 or kernel is None:
            continue
        shape = (batch, *place.before)
        if not isinstance(layer.padding, str) or not uses_winograd(shape, kernel.shape, layer.padding, platform):
            continue
        norm, factor = norms.get(layer.name), None
        if norm is not None and (inference_layers is None or norm.name in inference_layers):
            if "scale" not in params.get(norm.name, {}):
                continue
            factor = params[norm.name]["scale"] / jnp.sqrt(batch_stats[norm.name]["variance"] + norm.epsilon)
        prepared[layer.name] = {"kernel": _prepare(kernel, factor, shape, layer.padding)}
    return prepared


@partial(jax.jit, static_argnames=("image_shape", "padding"))
def _prepare(kernel: Array, factor: Array | None, image_shape: tuple[int, ...], padding: Padding) -> Array:
    return prepare_kernel(kernel if factor is None else kernel * factor, image_shape, padding)


def params_of(rows: Iterable[Row], params: Params) -> Params:
    """The part of a tree `layer -> parameter -> array` that belongs to some rows, in the order of the tree."""
    names = set(layer_names(layers_of(rows)))
    return {layer: leaves for layer, leaves in params.items() if layer in names}


def _early_rows(network: Network, rows: tuple[Row, ...]) -> tuple[Row, ...]:
    """The rows, from the first on, that a CPU computes for some images at a time.

    All rows of a light network; of another one with blocks, those with maps of at least an eighth of the images' width.
    """
    if is_light(rows):
        return rows
    if not has_blocks(rows):
        return ()
    least = network.input_shape[1] // EARLY_SCALE
    small = (row for row in rows if len(shape := network.shape_after(row.name)) < MAP_AXES or shape[1] < least)
    first = network.index(rows[0].name)
    late = next((network.start_before(network.index(row.name)) for row in small), first + len(rows))
    return rows[: max(0, late - first)]


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


def _of_rows(variables: Variables, rows: tuple[Row, ...]) -> dict[str, Params]:
    return {collection: params_of(rows, by_layer) for collection, by_layer in variables.items()}

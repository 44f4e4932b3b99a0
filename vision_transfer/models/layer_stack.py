"""The Flax module that applies a table of layers. It knows nothing of training, freezing or weights."""

import operator
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from vision_transfer.models.layer_modules import (
    BatchNormalisation,
    Convolution,
    Following,
    FullyConnected,
    PooledConvolution,
    SeparableConvolution,
    activate,
)
from vision_transfer.models.layers import (
    CONVOLUTIONS,
    Activate,
    AveragePool,
    BatchNorm,
    Block,
    Conv,
    Dense,
    DepthwiseConv,
    Dropout,
    Flatten,
    GlobalAveragePool,
    Layer,
    MaxPool,
    Merge,
    PoolLayers,
    Row,
    SeparableConv,
    ZeroPad,
    rows_pooled_later,
)
from vision_transfer.models.ops.convolution import chain, is_chained, max_pool
from vision_transfer.models.ops.pooling import POOL, average_pool, overlapping_max_pool
from vision_transfer.models.ops.windows import grid_windows, pad_map
from vision_transfer.models.precision import Numerics
from vision_transfer.models.shapes import output_shape, zeros_around

# Activations that may come after a maximum as well as before it.
MONOTONE = ("linear", "relu")


@dataclass(frozen=True)
class _Mode:
    """The keys of the examples' dropout, None for inference; and the examples' weights in batch statistics."""

    example_keys: Key[Array, "batch"] | None
    example_weights: Float[Array, "batch"] | None


class LayerStack(nn.Module):
    """Applies consecutive rows of a table.

    The parameters of a layer are at its name, whatever block it is inside of.

    Attributes:
        rows: the rows, in order.
        numerics: compute dtype and precision of products; parameters are always float32.
        inference_layers: names of batch norms that use their running statistics in training too. (An optimizer's mask
            does not stop the statistics from moving.)
        batch_axis: name of the mapped axis over which the batch is split, if any; batch statistics are those of the
            whole batch.
        watched: names of layers whose outputs are kept in the collection `watched`. A value in the collection
            `perturbations` is added to them, so that its gradient is that of the output.
    """

    rows: tuple[Row, ...]
    numerics: Numerics
    inference_layers: frozenset[str] = frozenset()
    batch_axis: str | None = None
    watched: frozenset[str] = frozenset()

    @nn.compact
    def __call__(
        self,
        inputs: Float[Array, "batch ..."],
        *,
        example_keys: Key[Array, "batch"] | None = None,
        example_weights: Float[Array, "batch"] | None = None,
    ) -> Float[Array, "batch ..."]:
        """Outputs of the last row, given inputs of the first.

        Dropout has a random key per example; without keys this is inference, with the running statistics of batch
        norms. Examples count in batch statistics by their weights (0 for padding; default: all ones).
        """
        # what is pooled later must lie behind the first row here (`Network.start_before`)
        return self._run(self.rows, inputs.astype(self.numerics.dtype), _Mode(example_keys, example_weights))

    def _run(self, rows: Sequence[Row], values: Array, mode: _Mode) -> Array:
        position = 0
        outputs: dict[str, Array] = {}
        while position < len(rows):
            row = rows[position]
            match row:
                case Block():
                    values = _merged(row.merge, [self._run(branch, values, mode) for branch in row.branches])
                case Conv() | DepthwiseConv() | SeparableConv():
                    values, position = self._convolve(rows, position, values, mode)
                case BatchNorm():
                    values = self._normalise(row, values, mode)
                case Dense():
                    values = FullyConnected(row, self.numerics, name=row.name)(values)
                case PoolLayers():
                    values = jnp.concatenate([_cell_means(outputs[name], row.grid) for name in row.layers], axis=-1)
                case Dropout():
                    values = values if mode.example_keys is None else _drop(values, row, mode.example_keys)
                case _:
                    values = _without_parameters(row, values)
            last = rows[position]
            values = self._watch(last.merge if isinstance(last, Block) else last, values)
            if last.name in self._pooled:
                outputs[last.name] = values
            position += 1
        return values

    def _watch(self, layer: Layer, values: Array) -> Array:
        if layer.name not in self.watched:
            return values
        if self.has_variable("perturbations", layer.name):
            values = values + self.get_variable("perturbations", layer.name)
        # Flax refuses a variable with the name of a module, so the layers' names are keys inside of one.
        self.sow("watched", "outputs", {layer.name: values}, reduce_fn=operator.or_, init_fn=dict)
        return values

    def _convolve(self, rows: Sequence[Row], position: int, images: Array, mode: _Mode) -> tuple[Array, int]:
        """Outputs of the convolution at `position` and rows computed with it; the position of the last of these."""
        layer = rows[position]
        following = self._following(rows, position, images.shape[-1], mode)
        last = position + following.count
        match layer:
            case Conv() if takes_norm(layer):
                pass
            case Conv() | DepthwiseConv():
                return Convolution(layer, self.numerics, name=layer.name)(images, following), last
            case SeparableConv():
                return SeparableConvolution(layer, self.numerics, name=layer.name)(images, following), last
            case _:
                raise TypeError(f"not a convolution: {layer}")
        pooled = following.activation in MONOTONE and self._joins(rows[last]) and is_pooled(rows, last)
        convolve = PooledConvolution(layer, pooled, self.numerics, name=layer.name)(images.shape[-1], following)
        second = None if following.count or not self._joins(layer) else chained_with(rows, position, images)
        second = second if second is not None and self._joins(second) else None
        if second is None:
            return convolve(images), last + pooled
        consume = PooledConvolution(second, True, self.numerics, name=second.name)
        activated = Following(None, None, second.activation, 0)
        return chain(convolve, consume(layer.features, activated), images), position + 2

    def _following(self, rows: Sequence[Row], position: int, channels: int, mode: _Mode) -> Following:
        """The batch norm, if it does not move, and the activation after the convolution at `position`."""
        last = rows[position]
        assert isinstance(last, CONVOLUTIONS)
        factor = shift = None
        activation, count = last.activation, 0
        features = channels if isinstance(last, DepthwiseConv) else last.features
        norm = _at(rows, position + 1)
        if isinstance(norm, BatchNorm) and activation == "linear" and self._joins(last) and not self._moves(norm, mode):
            mean, factor, bias = BatchNormalisation(norm, features, self.batch_axis, name=norm.name)(None, None)
            shift = bias - mean * factor
            last, activation, count = norm, norm.activation, 1
        after = _at(rows, position + count + 1)
        if isinstance(after, Activate) and activation == "linear" and self._joins(last):
            activation, count = after.activation, count + 1
        return Following(factor, shift, activation, count)

    def _joins(self, row: Row) -> bool:
        """Whether the row may be computed with the next one: its own output is of no interest."""
        return row.name not in self.watched and row.name not in self._pooled

    @property
    def _pooled(self) -> frozenset[str]:
        return rows_pooled_later(self.rows)

    def _moves(self, norm: BatchNorm, mode: _Mode) -> bool:
        return mode.example_keys is not None and norm.name not in self.inference_layers

    def _normalise(self, layer: BatchNorm, values: Array, mode: _Mode) -> Array:
        norm = BatchNormalisation(layer, values.shape[-1], self.batch_axis, name=layer.name)
        mean, factor, bias = norm(values if self._moves(layer, mode) else None, mode.example_weights)
        return activate(((values - mean) * factor + bias).astype(values.dtype), layer.activation)


def takes_norm(layer: Layer) -> bool:
    """Whether `PooledConvolution` computes the layer, with a batch norm in inference mode in its kernel, and a pool."""
    return isinstance(layer, Conv) and layer.strides == 1 and layer.kernel_size > 1 and isinstance(layer.padding, str)


def is_pooled(rows: Sequence[Row], position: int) -> bool:
    """Whether the row after this one is a pool that is computed with the convolution before it."""
    following = _at(rows, position + 1)
    return isinstance(following, MaxPool) and following.size == POOL and _is_disjoint(following)


def chained_with(
    rows: Sequence[Row], position: int, images: Float[Array, "batch height width channels"]
) -> Conv | None:
    """The next layer, if on a CPU this one is computed image by image and consumed by it; else None."""
    first, second = rows[position], _at(rows, position + 1)
    if not (isinstance(first, Conv) and isinstance(second, Conv) and is_pooled(rows, position + 1)):
        return None
    if not takes_norm(second) or not isinstance(second.padding, str) or second.activation not in MONOTONE:
        return None
    shape = (*images.shape[:1], *output_shape(first, images.shape[1:]))
    kernel = (second.kernel_size, second.kernel_size, first.features, second.features)
    return second if is_chained(images, shape, kernel, second.padding) else None


def _at(rows: Sequence[Row], position: int) -> Row | None:
    return rows[position] if position < len(rows) else None


def _is_disjoint(pool: MaxPool) -> bool:
    return pool.strides in (None, pool.size) and pool.padding == "valid"


def _without_parameters(row: Row, values: Array) -> Array:
    match row:
        case MaxPool() if _is_disjoint(row):
            return max_pool(values, row.size)
        case MaxPool():
            strides = row.strides or row.size
            return overlapping_max_pool(values, row.size, strides, row.padding)
        case AveragePool():
            return average_pool(values, row.size)
        case GlobalAveragePool():
            return jnp.mean(values, axis=(1, 2), keepdims=row.keep_axes)
        case Flatten():
            return values.reshape(values.shape[0], -1)
        case Activate():
            return activate(values, row.activation)
        case ZeroPad():
            return pad_map(values, zeros_around(row, values.shape[1:3]))
        case _:
            raise TypeError(f"cannot apply {row}")


def _cell_means(maps: Float[Array, "batch height width channels"], grid: int) -> Float[Array, "batch features"]:
    """The means over the cells of a grid, row by row, each with all its channels."""
    windows = (grid_windows(extent, grid) for extent in maps.shape[1:3])
    rows, columns = ([(at * stride, at * stride + size) for at in range(count)] for count, size, stride in windows)
    means = [
        jnp.mean(maps[:, top:bottom, left:right], axis=(1, 2))
        for (top, bottom), (left, right) in product(rows, columns)
    ]
    return jnp.concatenate(means, axis=-1)


def _merged(merge: Merge, inputs: Sequence[Array]) -> Array:
    match merge.kind:
        case "add":
            return sum(inputs[1:], inputs[0])
        case "multiply":
            product = inputs[0]
            for values in inputs[1:]:
                product = product * values
            return product
        case "concat":
            return jnp.concatenate(inputs, axis=-1)


def _drop(values: Array, layer: Dropout, example_keys: Key[Array, "batch"]) -> Array:
    """Dropout whose draws depend on the example's own key and the layer's name, not on the rest of the batch."""
    layer_number = zlib.crc32(layer.name.encode())

    def keep_of(key: Key[Array, ""]) -> Array:
        return jax.random.bernoulli(jax.random.fold_in(key, layer_number), 1 - layer.rate, values.shape[1:])

    return jnp.where(jax.vmap(keep_of)(example_keys), values / (1 - layer.rate), 0)

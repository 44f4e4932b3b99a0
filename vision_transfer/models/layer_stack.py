"""The Flax module that applies a table of layers. It knows nothing of training, freezing or weights."""

import zlib
from collections.abc import Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key

from vision_transfer.models.layers import (
    Activation,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePool,
    Layer,
    MaxPool,
    output_shape,
)
from vision_transfer.models.ops.convolution import Convolve, chain, convolution, is_chained, max_pool
from vision_transfer.models.ops.pooling import POOL
from vision_transfer.models.precision import Numerics


class LayerStack(nn.Module):
    """Applies consecutive layers of a table.

    Attributes:
        layers: the rows, in order.
        numerics: compute dtype and precision of products; parameters are always float32.
        inference_layers: names of batch norms that use their running statistics in training too, because they are
            frozen. (An optimizer's mask does not stop the statistics from moving.)
        batch_axis: name of the mapped axis over which the batch is split, if any; batch statistics are those of the
            whole batch.
    """

    layers: tuple[Layer, ...]
    numerics: Numerics
    inference_layers: frozenset[str] = frozenset()
    batch_axis: str | None = None

    @nn.compact
    def __call__(
        self,
        inputs: Float[Array, "batch ..."],
        *,
        example_keys: Key[Array, "batch"] | None = None,
        example_weights: Float[Array, "batch"] | None = None,
    ) -> Float[Array, "batch ..."]:
        """Outputs of the last layer, given inputs of the first.

        Dropout has a random key per example; without keys this is inference, with the running statistics of batch
        norms. Examples count in batch statistics by their weights (0 for padding; default: all ones).
        """
        train = example_keys is not None
        values = inputs.astype(self.numerics.dtype)
        position = 0
        while position < len(self.layers):
            layer = self.layers[position]
            match layer:
                case Conv():
                    values, position = self._convolve(layer, position, values)
                case MaxPool():
                    values = max_pool(values, layer.size)
                case BatchNorm():
                    moving = train and layer.name not in self.inference_layers
                    values = _BatchNormalisation(layer, self.batch_axis, name=layer.name)(
                        values, moving, example_weights
                    )
                case GlobalAveragePool():
                    values = jnp.mean(values, axis=(1, 2))
                case Flatten():
                    values = values.reshape(values.shape[0], -1)
                case Dense():
                    values = _Dense(layer, self.numerics, name=layer.name)(values)
                case Dropout():
                    if example_keys is not None:
                        values = _drop(values, layer, example_keys)
            position += 1
        return values

    def _convolve(self, layer: Conv, position: int, images: Array) -> tuple[Array, int]:
        """Outputs of the convolution at `position` and layers computed with it; the position of the last of these."""
        pooled = _is_pooled(self.layers, position)
        convolve = _Convolution(layer, pooled, self.numerics, name=layer.name)(images.shape[-1])
        following = chained_with(self.layers, position, images)
        if following is None:
            return convolve(images), position + pooled
        second = _Convolution(following, True, self.numerics, name=following.name)(layer.features)
        return chain(convolve, second, images), position + 2


class _Convolution(nn.Module):
    layer: Conv
    pooled: bool
    numerics: Numerics

    @nn.compact
    def __call__(self, channels: int) -> Convolve:
        """The convolution of images with `channels` channels, with this layer's parameters."""
        size = self.layer.kernel_size
        kernel = self.param("kernel", nn.initializers.glorot_uniform(), (size, size, channels, self.layer.features))
        bias = self.param("bias", nn.initializers.zeros_init(), (self.layer.features,))
        prepared = self.get_variable("prepared", "kernel") if self.has_variable("prepared", "kernel") else None
        return partial(
            convolution,
            kernel=kernel.astype(self.numerics.dtype),
            bias=bias.astype(self.numerics.dtype),
            padding=self.layer.padding,
            relu=self.layer.activation == "relu",
            pool=self.pooled,
            precision=self.numerics.precision,
            prepared=prepared,
        )


class _Dense(nn.Module):
    layer: Dense
    numerics: Numerics

    @nn.compact
    def __call__(self, values: Float[Array, "batch features"]) -> Array:
        kernel = self.param("kernel", nn.initializers.glorot_uniform(), (values.shape[-1], self.layer.features))
        bias = self.param("bias", nn.initializers.zeros_init(), (self.layer.features,))
        products = lax.dot(values, kernel.astype(self.numerics.dtype), precision=self.numerics.precision)
        return _activate(products + bias.astype(self.numerics.dtype), self.layer.activation)


class _BatchNormalisation(nn.Module):
    """Keras's BatchNormalization, with example weights, so that padding never enters the statistics."""

    layer: BatchNorm
    batch_axis: str | None

    @nn.compact
    def __call__(self, values: Array, moving: bool, example_weights: Float[Array, "batch"] | None) -> Array:
        features = values.shape[-1]
        scale = self.param("scale", nn.initializers.ones_init(), (features,))
        bias = self.param("bias", nn.initializers.zeros_init(), (features,))
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (features,), jnp.float32)
        running_variance = self.variable("batch_stats", "variance", jnp.ones, (features,), jnp.float32)
        mean, variance = running_mean.value, running_variance.value
        if moving:
            mean, variance = _weighted_moments(values.astype(jnp.float32), example_weights, self.batch_axis)
            keep = self.layer.momentum
            running_mean.value = keep * running_mean.value + (1 - keep) * mean
            running_variance.value = keep * running_variance.value + (1 - keep) * variance
        normal = (values - mean) * (scale * lax.rsqrt(variance + self.layer.epsilon)) + bias
        return _activate(normal.astype(values.dtype), self.layer.activation)


def _is_pooled(layers: Sequence[Layer], position: int) -> bool:
    """Whether the layer after this convolution is a pool that is computed with it."""
    following = layers[position + 1] if position + 1 < len(layers) else None
    return isinstance(following, MaxPool) and following.size == POOL


def chained_with(
    layers: Sequence[Layer], position: int, images: Float[Array, "batch height width channels"]
) -> Conv | None:
    """The next layer, if on a CPU this one is computed image by image and consumed by it; else None."""
    first, following = layers[position : position + 2] if position + 1 < len(layers) else (None, None)
    if not (isinstance(first, Conv) and isinstance(following, Conv) and _is_pooled(layers, position + 1)):
        return None
    shape = (*images.shape[:1], *output_shape(first, images.shape[1:]))
    kernel = (following.kernel_size, following.kernel_size, first.features, following.features)
    return following if is_chained(images, shape, kernel, following.padding) else None


def _activate(values: Array, activation: Activation) -> Array:
    return nn.relu(values) if activation == "relu" else values


def _weighted_moments(
    values: Array, weights: Float[Array, "batch"] | None, batch_axis: str | None
) -> tuple[Array, Array]:
    """Mean and (biased) variance over all axes but the last, with weighted examples, over all devices."""

    def total(partial_sum: Array) -> Array:
        return partial_sum if batch_axis is None else lax.psum(partial_sum, batch_axis)

    axes = tuple(range(values.ndim - 1))
    weights = jnp.ones(values.shape[0]) if weights is None else weights
    positions_per_example = values[0, ..., 0].size
    shares = weights / (total(jnp.sum(weights)) * positions_per_example)
    shares = shares.reshape(-1, *([1] * (values.ndim - 1)))
    mean = total(jnp.sum(values * shares, axes))
    return mean, total(jnp.sum(jnp.square(values - mean) * shares, axes))


def _drop(values: Array, layer: Dropout, example_keys: Key[Array, "batch"]) -> Array:
    """Dropout whose draws depend on the example's own key and the layer's name, not on the rest of the batch."""
    layer_number = zlib.crc32(layer.name.encode())

    def keep_of(key: Key[Array, ""]) -> Array:
        return jax.random.bernoulli(jax.random.fold_in(key, layer_number), 1 - layer.rate, values.shape[1:])

    return jnp.where(jax.vmap(keep_of)(example_keys), values / (1 - layer.rate), 0)

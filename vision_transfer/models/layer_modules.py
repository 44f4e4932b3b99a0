"""The Flax modules of layers with parameters. They hold variables; what they compute is in `ops`."""

from dataclasses import dataclass
from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from vision_transfer.models.layers import Activation, BatchNorm, Conv, Dense, DepthwiseConv, SeparableConv
from vision_transfer.models.ops.convolution import Convolve, convolution
from vision_transfer.models.ops.depthwise import depthwise_convolution
from vision_transfer.models.ops.strided import strided_convolution
from vision_transfer.models.precision import Numerics
from vision_transfer.models.shapes import parameter_shapes

Vector = Float[Array, "features"]


@dataclass(frozen=True)
class Following:
    """The rows that are computed with a convolution: a batch norm in inference mode, then an activation.

    Attributes:
        factor, shift: the output of the norm is `factor · values + shift`; None without a norm.
        activation: of the last of these rows.
        count: number of rows, besides the convolution's own.
    """

    factor: Vector | None
    shift: Vector | None
    activation: Activation
    count: int


class PooledConvolution(nn.Module):
    """A convolution of stride 1, computed together with its following and, with `pooled`, a 2×2 pooling.

    A kernel in the collection `prepared` is transformed already, the factor of the norm included.
    """

    layer: Conv
    pooled: bool
    numerics: Numerics

    @nn.compact
    def __call__(self, channels: int, following: Following) -> Convolve:
        """The convolution of images with `channels` channels, with this layer's parameters."""
        kernel, bias = _kernel_and_bias(self, "kernel", (0, 0, channels))
        kernel, bias = _folded(kernel, bias, following)
        prepared = self.get_variable("prepared", "kernel") if self.has_variable("prepared", "kernel") else None
        assert isinstance(self.layer.padding, str), "margins are for other modules"
        linear = partial(
            convolution,
            kernel=kernel.astype(self.numerics.dtype),
            bias=bias.astype(self.numerics.dtype),
            padding=self.layer.padding,
            relu=following.activation == "relu",
            pool=self.pooled,
            precision=self.numerics.precision,
            prepared=prepared,
        )
        if following.activation in ("linear", "relu"):
            return linear
        return lambda images: activate(linear(images), following.activation)


class Convolution(nn.Module):
    """A convolution of any stride and padding, or a depthwise one, with its following."""

    layer: Conv | DepthwiseConv
    numerics: Numerics

    @nn.compact
    def __call__(self, images: Float[Array, "batch height width channels"], following: Following) -> Array:
        """The output for a batch of maps."""
        layer, dtype = self.layer, self.numerics.dtype
        kernel, bias = _kernel_and_bias(self, "kernel", images.shape[1:])
        operation = strided_convolution if isinstance(layer, Conv) else depthwise_convolution
        outputs = operation(
            images,
            kernel.astype(dtype),
            strides=(layer.strides, layer.strides),
            padding=layer.padding,
            precision=self.numerics.precision,
        )
        return _finished(outputs, bias, following)


class SeparableConvolution(nn.Module):
    """A depthwise convolution and a 1×1 convolution, with their following."""

    layer: SeparableConv
    numerics: Numerics

    @nn.compact
    def __call__(self, images: Float[Array, "batch height width channels"], following: Following) -> Array:
        """The output for a batch of maps."""
        layer, dtype, precision = self.layer, self.numerics.dtype, self.numerics.precision
        shapes = parameter_shapes(layer, images.shape[1:])
        depthwise = self.param("depthwise_kernel", nn.initializers.glorot_uniform(), shapes["depthwise_kernel"])
        pointwise, bias = _kernel_and_bias(self, "pointwise_kernel", images.shape[1:])
        between = depthwise_convolution(images, depthwise.astype(dtype), padding=layer.padding, precision=precision)
        outputs = strided_convolution(between, pointwise.astype(dtype), padding="valid", precision=precision)
        return _finished(outputs, bias, following)


class FullyConnected(nn.Module):
    """A dense layer with its activation."""

    layer: Dense
    numerics: Numerics

    @nn.compact
    def __call__(self, values: Float[Array, "batch features"]) -> Array:
        """The output for a batch of vectors."""
        kernel = self.param("kernel", nn.initializers.glorot_uniform(), (values.shape[-1], self.layer.features))
        bias = self.param("bias", nn.initializers.zeros_init(), (self.layer.features,))
        products = lax.dot(values, kernel.astype(self.numerics.dtype), precision=self.numerics.precision)
        return activate(products + bias.astype(self.numerics.dtype), self.layer.activation)


class BatchNormalisation(nn.Module):
    """Keras's BatchNormalization, with example weights, so that padding never enters the statistics."""

    layer: BatchNorm
    features: int
    batch_axis: str | None

    @nn.compact
    def __call__(
        self, values: Float[Array, "batch ... features"] | None, example_weights: Float[Array, "batch"] | None
    ) -> tuple[Vector, Vector, Vector]:
        """`(mean, factor, bias)`, all float32: the output is `(values - mean) · factor + bias`.

        With `values`, the statistics are theirs, and the running statistics move; without, they are the running ones.
        """
        scale = self.param("scale", nn.initializers.ones_init(), (self.features,))
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (self.features,), jnp.float32)
        running_variance = self.variable("batch_stats", "variance", jnp.ones, (self.features,), jnp.float32)
        mean, variance = running_mean.value, running_variance.value
        if values is not None:
            mean, variance = _weighted_moments(values.astype(jnp.float32), example_weights, self.batch_axis)
            keep = self.layer.momentum
            running_mean.value = keep * running_mean.value + (1 - keep) * mean
            running_variance.value = keep * running_variance.value + (1 - keep) * variance
        return mean, scale * lax.rsqrt(variance + self.layer.epsilon), bias


def activate(values: Array, activation: Activation) -> Array:
    """The activation of each value."""
    match activation:
        case "linear":
            return values
        case "relu":
            return nn.relu(values)
        case "relu6":
            return nn.relu6(values)
        case "swish":
            return nn.swish(values)
        case "sigmoid":
            return nn.sigmoid(values)


def _kernel_and_bias(
    module: PooledConvolution | Convolution | SeparableConvolution, kernel_name: str, before: tuple[int, ...]
) -> tuple[Array, Array | None]:
    shapes = parameter_shapes(module.layer, before)
    kernel = module.param(kernel_name, nn.initializers.glorot_uniform(), shapes[kernel_name])
    bias = module.param("bias", nn.initializers.zeros_init(), shapes["bias"]) if "bias" in shapes else None
    return kernel, bias


def _folded(kernel: Array, bias: Array | None, following: Following) -> tuple[Array, Array]:
    """Kernel and bias of the convolution that gives the norm's output by itself."""
    bias = jnp.zeros(kernel.shape[-1:], kernel.dtype) if bias is None else bias
    if following.factor is None or following.shift is None:
        return kernel, bias
    return kernel * following.factor, bias * following.factor + following.shift


def _finished(outputs: Array, bias: Array | None, following: Following) -> Array:
    """Bias, norm and activation of a convolution's products."""
    if following.factor is not None and following.shift is not None:
        shift = following.shift if bias is None else following.shift + bias * following.factor
        outputs = (outputs * following.factor + shift).astype(outputs.dtype)
    elif bias is not None:
        outputs = outputs + bias.astype(outputs.dtype)
    return activate(outputs, following.activation)


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

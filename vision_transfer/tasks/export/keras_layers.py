"""The network as layers of Keras: configuration, weights and inputs of each, built from the table without Keras."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from vision_transfer.errors import UserError
from vision_transfer.models.layers import (
    CONVOLUTIONS,
    Activate,
    Activation,
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
    layers_of,
)
from vision_transfer.models.ops.windows import grid_windows
from vision_transfer.models.shapes import Shape, output_shape, pooled_width, zeros_around
from vision_transfer.tasks.export.inference_network import PlainNetwork

MODEL_NAME, INPUT_NAME = "vision_transfer", "images"
# Keras 3's name for the state of a dropout's random generator, and its initial value.
SEED_STATE, FIRST_SEED = "seed_generator", np.array([0, 0], np.uint32)
# Keras's order of a layer's weights.
WEIGHTS = ("depthwise_kernel", "pointwise_kernel", "kernel", "bias")
# Layers whose output is ≥ 0 where their input is.
KEEPS_SIGN = (MaxPool, AveragePool, GlobalAveragePool, ZeroPad, Flatten, Dropout)
MERGES = {"add": "Add", "concat": "Concatenate", "multiply": "Multiply"}


@dataclass(frozen=True)
class Tensor:
    """The output of the layer `name`, with its shape for one example."""

    name: str
    shape: Shape


@dataclass(frozen=True)
class KerasLayer:
    """A layer and where it stands; its weights have Keras's names and order, and a `seed` means a random generator."""

    class_name: str
    config: dict[str, Any]
    weights: Mapping[str, np.ndarray] = field(default_factory=dict)
    seed: bool = False
    inputs: tuple[Tensor, ...] = ()

    @property
    def name(self) -> str:
        """The layer's name."""
        return self.config["name"]


def keras_layers(plain: PlainNetwork) -> list[KerasLayer]:
    """The layers in Keras's order, without the input; the last gives probabilities, the one before it logits.

    Raises:
        UserError: a layer that Keras cannot express.
    """
    last = Tensor(INPUT_NAME, plain.input_shape)
    layers: list[KerasLayer] = []
    if np.any(plain.scale != 1) or np.any(plain.offset):
        scale, offset = plain.scale.tolist(), plain.offset.tolist()
        rescaling = _layer("Rescaling", "preprocessing", scale=scale, offset=offset)
        layers.append(replace(rescaling, inputs=(last,)))
        last = replace(last, name=rescaling.name)
    rows, _ = _in_terms_of_keras(plain.rows, rectified=False)
    found: dict[str, KerasLayer] = {}
    last = _connect(rows, last, plain, found)
    softmax = {"units": len(plain.classes), "activation": "softmax", "use_bias": False, "trainable": False}
    probabilities = _layer("Dense", "probabilities", {"kernel": plain.class_kernel}, **softmax)
    order = [name for layer in layers_of(rows) for name in (*_averages(layer), layer.name)]
    return [*layers, *(found[name] for name in order), replace(probabilities, inputs=(last,))]


def _in_terms_of_keras(rows: Sequence[Row], *, rectified: bool) -> tuple[tuple[Row, ...], bool]:
    """The rows with layers of their own for what Keras's have no argument for, and whether their output is ≥ 0.

    These are zeros in margins, the activation of a batch norm, and relu6, which Keras 2 has as a layer only.
    `rectified` says whether their input is ≥ 0.

    Raises:
        UserError: a max-pooling with margins of values that may be negative, since Keras can only add zeros.
    """
    spelt_out: list[Row] = []
    ends: dict[str, str] = {}
    for row in rows:
        if isinstance(row, PoolLayers):
            spelt_out.append(replace(row, layers=tuple(ends[name] for name in row.layers)))
            continue
        if isinstance(row, Block):
            branches = [_in_terms_of_keras(branch, rectified=rectified) for branch in row.branches]
            spelt_out.append(replace(row, branches=tuple(branch for branch, _ in branches)))
            rectified = all(is_rectified for _, is_rectified in branches)
            ends[row.name] = row.name
            continue
        spelt_out += _spelt_out(row, rectified)
        ends[row.name] = spelt_out[-1].name
        if not isinstance(row, KEEPS_SIGN):
            rectified = getattr(row, "activation", "linear") in ("relu", "relu6", "sigmoid")
    return tuple(spelt_out), rectified


def _spelt_out(layer: Layer, rectified: bool) -> list[Row]:
    rows: list[Row] = []
    if isinstance(layer, (*CONVOLUTIONS, MaxPool)) and not isinstance(layer.padding, str):
        if isinstance(layer, MaxPool) and not rectified:
            raise UserError(
                f"--format=keras: Keras has no max-pooling with margins {layer.padding} of values that may be "
                f"negative, as layer {layer.name!r} has; leave this format out with --format=stablehlo,onnx"
            )
        rows.append(ZeroPad(f"{layer.name}_pad", layer.padding))
        layer = replace(layer, padding="valid")
    activation: Activation = getattr(layer, "activation", "linear")
    is_apart = isinstance(layer, BatchNorm) or (isinstance(layer, (*CONVOLUTIONS, Dense)) and activation == "relu6")
    if activation == "linear" or not is_apart:
        return [*rows, layer]
    return [*rows, replace(layer, activation="linear"), Activate(f"{layer.name}_{activation}", activation)]


def _connect(rows: Sequence[Row], last: Tensor, plain: PlainNetwork, found: dict[str, KerasLayer]) -> Tensor:
    """The output of the rows for the input `last`; enters their layers into `found`."""
    outputs: dict[str, Tensor] = {}
    for row in rows:
        match row:
            case Block():
                ends = [_connect(branch, last, plain, found) for branch in row.branches]
            case PoolLayers():
                maps = [outputs[name] for name in row.layers]
                ends = [_averaged(row, name, of, found) for name, of in zip(row.layers, maps, strict=True)]
            case _:
                ends = [last]
        layer = row.merge if isinstance(row, Block) else row
        found[layer.name] = replace(_keras_layer(layer, plain, last.shape), inputs=tuple(ends))
        shapes = {name: tensor.shape for name, tensor in outputs.items()}
        outputs[row.name] = last = Tensor(layer.name, output_shape(row, last.shape, shapes))
    return last


def _averaged(layer: PoolLayers, of: str, pooled: Tensor, found: dict[str, KerasLayer]) -> Tensor:
    """The averages of a map that is pooled, the output of the row `of`; enters what computes them into `found`."""
    name = f"{layer.name}_{of}"
    if layer.grid == 1:
        found[name] = replace(_layer("GlobalAveragePooling2D", name), inputs=(pooled,))
    else:
        counts, sizes, strides = zip(*(grid_windows(extent, layer.grid) for extent in pooled.shape[:2]), strict=True)
        windows = {"pool_size": list(sizes), "strides": list(strides), "padding": "valid"}
        cells = _layer("AveragePooling2D", f"{name}_cells", **windows)
        found[cells.name] = replace(cells, inputs=(pooled,))
        found[name] = replace(_layer("Flatten", name), inputs=(Tensor(cells.name, (*counts, pooled.shape[-1])),))
    return Tensor(name, (pooled_width(layer, pooled.shape),))


def _averages(layer: Layer) -> list[str]:
    """The names of the layers that average the maps of pooled layers, in their order."""
    if not isinstance(layer, PoolLayers):
        return []
    kinds = ("",) if layer.grid == 1 else ("_cells", "")
    return [f"{layer.name}_{of}{kind}" for of in layer.layers for kind in kinds]


def _keras_layer(layer: Layer, plain: PlainNetwork, before: Shape) -> KerasLayer:
    params, name = plain.params.get(layer.name, {}), layer.name
    weights = {key: params[key] for key in WEIGHTS if key in params}
    match layer:
        case Conv():
            arguments = {"filters": layer.features, **_convolution(layer)}
            return _layer("Conv2D", name, weights, **arguments, **_strides(layer.strides))
        case DepthwiseConv():
            return _layer("DepthwiseConv2D", name, weights, **_convolution(layer), **_strides(layer.strides))
        case SeparableConv():
            return _layer("SeparableConv2D", name, weights, filters=layer.features, **_convolution(layer))
        case BatchNorm():
            stats = plain.batch_stats[name]
            weights = {"gamma": params["scale"], "beta": params["bias"]}
            weights |= {"moving_mean": stats["mean"], "moving_variance": stats["variance"]}
            return _layer("BatchNormalization", name, weights, momentum=layer.momentum, epsilon=layer.epsilon)
        case Dense():
            return _layer("Dense", name, weights, units=layer.features, activation=layer.activation)
        case _:
            return _without_weights(layer, before)


def _without_weights(layer: Layer, before: Shape) -> KerasLayer:
    name = layer.name
    match layer:
        case MaxPool():
            size, strides = [layer.size] * 2, [layer.strides or layer.size] * 2
            return _layer("MaxPooling2D", name, pool_size=size, strides=strides, padding=layer.padding)
        case AveragePool():
            return _layer("AveragePooling2D", name, pool_size=[layer.size] * 2, padding="valid")
        case ZeroPad():
            return _layer("ZeroPadding2D", name, padding=[list(around) for around in zeros_around(layer, before[:2])])
        case Activate():
            return _activation(layer)
        case GlobalAveragePool():
            keep: dict[str, Any] = {"keepdims": True} if layer.keep_axes else {}
            return _layer("GlobalAveragePooling2D", name, **keep)
        case PoolLayers():
            return _layer("Concatenate" if len(layer.layers) > 1 else "Flatten", name)
        case Flatten():
            return _layer("Flatten", name)
        case Dropout():
            return KerasLayer("Dropout", {"name": name, "rate": layer.rate}, seed=True)
        case Merge():
            return _layer(MERGES[layer.kind], name)
        case _:
            raise NotImplementedError(f"Keras's form of {layer}")


def _activation(layer: Activate) -> KerasLayer:
    if layer.activation == "relu6":
        return _layer("ReLU", layer.name, max_value=6.0)
    return _layer("Activation", layer.name, activation=layer.activation)


def _convolution(layer: Conv | DepthwiseConv | SeparableConv) -> dict[str, Any]:
    arguments = {"kernel_size": [layer.kernel_size] * 2, "padding": layer.padding, "activation": layer.activation}
    return arguments if layer.bias else {**arguments, "use_bias": False}


def _strides(strides: int) -> dict[str, Any]:
    return {} if strides == 1 else {"strides": [strides] * 2}


def _layer(class_name: str, name: str, weights: Mapping[str, np.ndarray] | None = None, **arguments: Any) -> KerasLayer:
    return KerasLayer(class_name, {"name": name, **arguments}, weights or {})

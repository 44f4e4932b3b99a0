"""The network as an ONNX graph, built from the table.

Operators: https://onnx.ai/onnx/operators/. Images are NHWC, as everywhere here; ONNX's convolutions take NCHW.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vision_transfer.models.layers import (
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
    Padding,
    PoolLayers,
    Row,
    SeparableConv,
    ZeroPad,
)
from vision_transfer.models.ops.windows import grid_windows, margins_of
from vision_transfer.models.shapes import Shape, output_shape, zeros_around
from vision_transfer.tasks.export.inference_network import PlainNetwork

# From 2021, so that old runtimes accept them; nothing newer is needed.
OPSET, IR_VERSION = 17, 8
NHWC_TO_NCHW, NCHW_TO_NHWC = (0, 3, 1, 2), (0, 2, 3, 1)
# HWIO to OIHW; of a depthwise kernel, height × width × channels × 1 to channels × 1 × height × width.
KERNEL_AXES, DEPTHWISE_AXES = (3, 2, 0, 1), (2, 3, 0, 1)
MAP_RANK = 3
RELU6_LIMITS = (np.float32(0), np.float32(6))


@dataclass
class _Graph:
    """The nodes and constants added so far, and the name of the last value."""

    last: str = "images"
    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)

    def add(self, operator: str, name: str, *constants: np.ndarray | np.generic, **attributes: Any) -> None:
        """Applies an operator to the last value and to constants."""
        from onnx import numpy_helper

        names = [f"{name}/{place}" for place in range(len(constants))]
        for constant, its_name in zip(constants, names, strict=True):
            self.constants.append(numpy_helper.from_array(np.asarray(constant, order="C"), its_name))
        self.combine(operator, name, (self.last, *names), **attributes)

    def combine(self, operator: str, name: str, inputs: Sequence[str], **attributes: Any) -> None:
        """Applies an operator to values by their names."""
        from onnx import helper

        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        self.last = name


def onnx_model(plain: PlainNetwork) -> bytes:
    """The serialised model, checked by ONNX's own checker.

    Input: `images` `(batch, height, width, channels) float32`, 0–255. Outputs: `probabilities` `(batch, classes)` and
    `logits` `(batch, outputs)`. The class names are in its metadata under `classes`, as a JSON list.
    """
    import onnx
    from onnx import TensorProto, helper

    graph = _Graph()
    if not np.all(plain.scale == 1):
        graph.add("Mul", "preprocessing/scale", plain.scale)
    if np.any(plain.offset):
        graph.add("Add", "preprocessing/offset", plain.offset)
    graph.add("Transpose", "preprocessing/channels_first", perm=NHWC_TO_NCHW)
    _add_rows(graph, plain.rows, plain, plain.input_shape)
    if graph.last != "logits":
        graph.add("Identity", "logits")
    graph.add("MatMul", "probabilities/arguments", plain.class_kernel)
    graph.add("Softmax", "probabilities", axis=1)
    outputs, classes = plain.class_kernel.shape

    def value(name: str, *shape: int) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])

    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "vision_transfer",
            [value("images", *plain.input_shape)],
            [value("probabilities", classes), value("logits", outputs)],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="vision_transfer",
    )
    helper.set_model_props(model, {"classes": json.dumps(plain.classes, ensure_ascii=False)})
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def _add_rows(graph: _Graph, rows: Sequence[Row], plain: PlainNetwork, shape: Shape) -> None:
    """Adds rows; `shape` is that of one example before them. Maps are NCHW from here on."""
    outputs: dict[str, str] = {}
    shapes: dict[str, Shape] = {}
    for row in rows:
        match row:
            case Block():
                _add_block(graph, row, plain, shape)
            case PoolLayers():
                _pool_layers(graph, row, outputs, shapes)
            case _:
                _add_layer(graph, row, plain, shape)
        outputs[row.name] = graph.last
        shapes[row.name] = shape = output_shape(row, shape, shapes)


def _pool_layers(graph: _Graph, layer: PoolLayers, outputs: Mapping[str, str], shapes: Mapping[str, Shape]) -> None:
    ends = []
    for of in layer.layers:
        name = f"{layer.name}/{of}"
        if layer.grid == 1:
            graph.combine("GlobalAveragePool", f"{name}/map", [outputs[of]])
        else:
            _, sizes, strides = zip(*(grid_windows(extent, layer.grid) for extent in shapes[of][:2]), strict=True)
            graph.combine("AveragePool", f"{name}/cells", [outputs[of]], kernel_shape=sizes, strides=strides)
            graph.add("Transpose", f"{name}/channels_last", perm=NCHW_TO_NHWC)
        graph.add("Flatten", name, axis=1)
        ends.append(graph.last)
    graph.combine("Concat", layer.name, ends, axis=1)


def _add_block(graph: _Graph, block: Block, plain: PlainNetwork, shape: Shape) -> None:
    before, ends = graph.last, []
    for branch in block.branches:
        graph.last = before
        _add_rows(graph, branch, plain, shape)
        ends.append(graph.last)
    _merge(graph, block.merge, ends)


def _merge(graph: _Graph, merge: Merge, ends: Sequence[str]) -> None:
    match merge.kind:
        case "add":
            graph.combine("Sum", merge.name, ends)
        case "concat":
            graph.combine("Concat", merge.name, ends, axis=1)
        case "multiply":
            graph.last = ends[0]
            for number, end in enumerate(ends[1:], start=2):
                name = merge.name if number == len(ends) else f"{merge.name}/{number}"
                graph.combine("Mul", name, (graph.last, end))


def _add_layer(graph: _Graph, layer: Layer, plain: PlainNetwork, shape: Shape) -> None:
    params, name = _float32(plain.params.get(layer.name, {})), layer.name
    match layer:
        case Conv() | DepthwiseConv() | SeparableConv():
            _convolve(graph, layer, params, shape)
        case BatchNorm():
            stats = _float32(plain.batch_stats[name])
            values = (params["scale"], params["bias"], stats["mean"], stats["variance"])
            graph.add("BatchNormalization", name, *values, epsilon=layer.epsilon)
        case Dense():
            graph.add("Gemm", name, params["kernel"], params["bias"])
        case Activate():
            _activate(graph, layer.activation, name)
        case Flatten():
            if len(shape) == MAP_RANK:
                graph.add("Transpose", f"{name}/channels_last", perm=NCHW_TO_NHWC)
            graph.add("Flatten", name, axis=1)
        case Dropout():
            pass
        case _:
            _pool(graph, layer, shape)
    if isinstance(layer, Conv | DepthwiseConv | SeparableConv | BatchNorm | Dense):
        _activate(graph, layer.activation, f"{name}/{layer.activation}")


def _convolve(
    graph: _Graph, layer: Conv | DepthwiseConv | SeparableConv, params: dict[str, np.ndarray], shape: Shape
) -> None:
    name, size, biases = layer.name, layer.kernel_size, [params["bias"]] if "bias" in params else []
    match layer:
        case Conv(strides=strides):
            windows = _windows(shape, size, strides, layer.padding)
            graph.add("Conv", name, params["kernel"].transpose(KERNEL_AXES), *biases, **windows)
        case DepthwiseConv(strides=strides):
            windows = _windows(shape, size, strides, layer.padding)
            kernel = params["kernel"].transpose(DEPTHWISE_AXES)
            graph.add("Conv", name, kernel, *biases, group=shape[-1], **windows)
        case SeparableConv():
            windows = _windows(shape, size, 1, layer.padding)
            kernel = params["depthwise_kernel"].transpose(DEPTHWISE_AXES)
            graph.add("Conv", f"{name}/depthwise", kernel, group=shape[-1], **windows)
            graph.add("Conv", name, params["pointwise_kernel"].transpose(KERNEL_AXES), *biases)


def _pool(graph: _Graph, layer: Layer, shape: Shape) -> None:
    """Adds a layer without parameters whose output is another map."""
    name = layer.name
    match layer:
        case MaxPool(size=size):
            windows = _windows(shape, size, layer.strides or size, layer.padding)
            graph.add("MaxPool", name, kernel_shape=[size] * 2, **windows)
        case AveragePool(size=size):
            graph.add("AveragePool", name, kernel_shape=[size] * 2, strides=[size] * 2)
        case ZeroPad():
            (top, bottom), (left, right) = zeros_around(layer, shape[:2])
            graph.add("Pad", name, np.array([0, 0, top, left, 0, 0, bottom, right], np.int64))
        case GlobalAveragePool(keep_axes=True):
            graph.add("GlobalAveragePool", name)
        case GlobalAveragePool():
            graph.add("GlobalAveragePool", f"{name}/map")
            graph.add("Flatten", name, axis=1)
        case _:
            raise NotImplementedError(f"ONNX's form of {layer}")


def _float32(arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {name: np.asarray(values, np.float32) for name, values in arrays.items()}


def _activate(graph: _Graph, activation: Activation, name: str) -> None:
    match activation:
        case "linear":
            pass
        case "relu":
            graph.add("Relu", name)
        case "relu6":
            graph.add("Clip", name, *RELU6_LIMITS)
        case "sigmoid":
            graph.add("Sigmoid", name)
        case "swish":
            values = graph.last
            graph.add("Sigmoid", f"{name}/gate")
            graph.combine("Mul", name, (values, graph.last))


def _windows(shape: Shape, size: int, strides: int, padding: Padding) -> dict[str, list[int]]:
    """The attributes of windows over a map of `shape`."""
    (top, bottom), (left, right) = margins_of(padding, shape[:2], (size, size), (strides, strides))
    return {"strides": [strides] * 2, "pads": [top, left, bottom, right]}

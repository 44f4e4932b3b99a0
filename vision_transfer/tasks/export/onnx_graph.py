"""The network as an ONNX graph, built from the layer table.

Operators: https://onnx.ai/onnx/operators/. Images are NHWC, as everywhere here; ONNX's convolutions take NCHW.
"""

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vision_transfer.models.layers import BatchNorm, Conv, Dense, Dropout, Flatten, GlobalAveragePool, Layer, MaxPool
from vision_transfer.tasks.export.inference_network import PlainNetwork

# From 2021, so that old runtimes accept them; nothing newer is needed.
OPSET, IR_VERSION = 17, 8
NHWC_TO_NCHW, NCHW_TO_NHWC = (0, 3, 1, 2), (0, 2, 3, 1)


@dataclass
class _Graph:
    """The nodes and constants added so far, and the name of the last value."""

    last: str = "images"
    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)

    def add(self, operator: str, name: str, *constants: np.ndarray, **attributes: Any) -> None:
        """Applies an operator to the last value and to constants."""
        from onnx import helper, numpy_helper

        names = [f"{name}/{place}" for place in range(len(constants))]
        for constant, its_name in zip(constants, names, strict=True):
            self.constants.append(numpy_helper.from_array(np.ascontiguousarray(constant, np.float32), its_name))
        self.nodes.append(helper.make_node(operator, [self.last, *names], [name], name=name, **attributes))
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
        graph.add("Mul", "scaled", plain.scale)
    if np.any(plain.offset):
        graph.add("Add", "centred", plain.offset)
    graph.add("Transpose", "channels_first", perm=NHWC_TO_NCHW)
    is_map = True
    for layer in plain.layers:
        is_map = _add_layer(graph, layer, plain, is_map)
    graph.add("Identity", "logits")
    graph.add("MatMul", "arguments", plain.class_kernel)
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


def _add_layer(graph: _Graph, layer: Layer, plain: PlainNetwork, is_map: bool) -> bool:
    """Adds a layer; returns whether the last value is a map (NCHW) rather than a vector."""
    params, name = plain.params.get(layer.name, {}), layer.name
    match layer:
        case Conv():
            size, same = layer.kernel_size, layer.padding == "same"
            pads = [(size - 1) // 2] * 2 + [size // 2] * 2 if same else [0] * 4
            graph.add("Conv", name, params["kernel"].transpose(3, 2, 0, 1), params["bias"], pads=pads)
        case MaxPool():
            graph.add("MaxPool", name, kernel_shape=[layer.size] * 2, strides=[layer.size] * 2)
        case BatchNorm():
            stats = plain.batch_stats[name]
            values = (params["scale"], params["bias"], stats["mean"], stats["variance"])
            graph.add("BatchNormalization", name, *values, epsilon=layer.epsilon)
        case GlobalAveragePool():
            graph.add("GlobalAveragePool", f"{name}/map")
            graph.add("Flatten", name, axis=1)
            is_map = False
        case Flatten():
            if is_map:
                graph.add("Transpose", f"{name}/channels_last", perm=NCHW_TO_NHWC)
            graph.add("Flatten", name, axis=1)
            is_map = False
        case Dense():
            graph.add("Gemm", name, params["kernel"], params["bias"])
        case Dropout():
            pass
    if isinstance(layer, Conv | BatchNorm | Dense) and layer.activation == "relu":
        graph.add("Relu", f"{name}/relu")
    return is_map

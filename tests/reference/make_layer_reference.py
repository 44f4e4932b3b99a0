"""Makes `layers.npz` of this folder: outputs and gradients of single layers, by Keras 3.15 and PyTorch 2.13.

Run in an environment with `keras`, `tensorflow-cpu` and `torch`:

    python make_layer_reference.py OUT_DIR

All is computed in float64 and kept as float32. Each case is a small network whose layers have names. Its input, the
cotangent of its output and its parameters are those of `formula.py`, for `CASE/input`, `CASE/cotangent` and
`CASE/LAYER/PARAMETER`. Arrays of the file: `CASE/output`; the gradients of the sum of output × cotangent,
`CASE/grad_input` and `CASE/grad/LAYER/PARAMETER`; in training also `CASE/moved/LAYER/PARAMETER`, the statistics after
one step. `cases` is a JSON object: what each case's `layer` is, in Keras's words or PyTorch's.
"""

import itertools
import json
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
import torch
from formula import draw, weight
from keras import layers

# Two images; one side even and one odd, since `same` padding at stride 2 differs between them.
SHAPE = (2, 8, 9, 3)
FEATURES = 4
# Wide enough for both ends of relu6.
INPUT_ENDS = (-8, 8)
SQUEEZED = 2


def case_input(case):
    return draw(f"{case}/input", SHAPE, *INPUT_ENDS)


def keras_case(case, build, training=False):
    """The arrays of a case: `build` maps a symbolic input to the output."""
    inputs = keras.Input(SHAPE[1:])
    model = keras.Model(inputs, build(inputs))
    variables = {f"{layer.name}/{each.name}": each for layer in model.layers for each in layer.weights}
    for name, variable in variables.items():
        variable.assign(weight(f"{case}/{name.split('/')[0]}", variable.name, variable.shape))
    values = tf.constant(case_input(case), tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(values)
        output = model(values, training=training)
        target = tf.reduce_sum(output * draw(f"{case}/cotangent", output.shape))
    trained = {name: variable for name, variable in variables.items() if variable.trainable}
    grads = tape.gradient(target, [values, *[variable.value for variable in trained.values()]])
    found = {"output": output, "grad_input": grads[0]}
    found |= {f"grad/{name}": grad for name, grad in zip(trained, grads[1:], strict=True)}
    if training:
        found |= {f"moved/{name}": variable.value for name, variable in variables.items() if not variable.trainable}
    return found


def keras_layer(case, kind, training=False, **arguments):
    return keras_case(case, getattr(layers, kind)(name="layer", **arguments), training)


def convolutions():
    """Names and arguments of every convolution."""
    for size, stride, padding, bias in itertools.product((1, 3, 7), (1, 2), ("valid", "same"), (False, True)):
        if not (size == 7 and bias):
            name = f"conv_{size}_stride_{stride}_{padding}_{'bias' if bias else 'plain'}"
            shape = {"filters": FEATURES, "kernel_size": size, "strides": stride}
            yield name, {"kind": "Conv2D", **shape, "padding": padding, "use_bias": bias}
    for size, stride, padding in itertools.product((3, 5), (1, 2), ("valid", "same")):
        bias = padding == "valid"
        shape = {"kernel_size": size, "strides": stride, "padding": padding}
        yield f"depthwise_{size}_stride_{stride}_{padding}", {"kind": "DepthwiseConv2D", **shape, "use_bias": bias}
    for padding, bias in (("same", False), ("valid", True)):
        shape = {"filters": FEATURES, "kernel_size": 3, "padding": padding}
        yield f"separable_3_{padding}", {"kind": "SeparableConv2D", **shape, "use_bias": bias}


def other_layers():
    """Names and arguments of the layers that are no convolution."""
    for epsilon, momentum, training in itertools.product((1e-3, 1.001e-5), (0.99, 0.999), (False, True)):
        name = f"batch_norm_{epsilon}_{momentum}_{'training' if training else 'inference'}"
        yield (
            name,
            {"kind": "BatchNormalization", "epsilon": epsilon, "momentum": momentum, "training": training},
        )
    for (size, stride), padding in itertools.product(((3, 2), (2, 2), (3, 1)), ("valid", "same")):
        arguments = {"pool_size": size, "strides": stride, "padding": padding}
        yield f"max_pool_{size}_stride_{stride}_{padding}", {"kind": "MaxPooling2D", **arguments}
    yield "average_pool_2", {"kind": "AveragePooling2D", "pool_size": 2}
    for padding in (1, 3, ((0, 1), (0, 1)), ((1, 0), (0, 2))):
        name = str(padding) if isinstance(padding, int) else "_".join(str(side) for pair in padding for side in pair)
        yield f"zero_padding_{name}", {"kind": "ZeroPadding2D", "padding": padding}
    yield "relu", {"kind": "ReLU"}
    yield "relu6", {"kind": "ReLU", "max_value": 6.0}
    for activation in ("swish", "sigmoid"):
        yield activation, {"kind": "Activation", "activation": activation}
    yield "global_average_pool", {"kind": "GlobalAveragePooling2D"}


def residual(inputs):
    """`Add` of a branch of two layers and the input."""
    values = layers.Conv2D(SHAPE[-1], 3, padding="same", use_bias=False, name="conv")(inputs)
    values = layers.BatchNormalization(name="norm")(values)
    return layers.Add(name="merge")([values, inputs])


def projected(inputs):
    """`Add` of a projected shortcut and a branch, then ReLU, as in ResNet."""
    shortcut = layers.Conv2D(FEATURES, 1, strides=2, name="0_conv")(inputs)
    values = layers.Conv2D(FEATURES, 3, strides=2, padding="same", name="1_conv")(inputs)
    values = layers.Activation("relu", name="1_relu")(values)
    values = layers.Conv2D(FEATURES, 1, name="2_conv")(values)
    return layers.Activation("relu", name="out")(layers.Add(name="merge")([shortcut, values]))


def dense(inputs):
    """`Concatenate` of the input and a branch, the input first, as in DenseNet."""
    values = layers.Activation("relu", name="relu")(inputs)
    values = layers.Conv2D(FEATURES, 3, padding="same", use_bias=False, name="conv")(values)
    return layers.Concatenate(name="merge")([inputs, values])


def squeeze_excite(inputs):
    """`Multiply` by a gate of each channel, as in EfficientNet."""
    gate = layers.GlobalAveragePooling2D(name="squeeze")(inputs)
    gate = layers.Reshape((1, 1, SHAPE[-1]), name="reshape")(gate)
    gate = layers.Conv2D(SQUEEZED, 1, padding="same", activation="swish", name="reduce")(gate)
    gate = layers.Conv2D(SHAPE[-1], 1, padding="same", activation="sigmoid", name="expand")(gate)
    return layers.Multiply(name="merge")([inputs, gate])


BLOCKS = {
    "block_add": residual,
    "block_add_projected": projected,
    "block_concat": dense,
    "block_multiply": squeeze_excite,
}


def torch_cases():
    """Names and arguments of layers with explicit padding, at stride 2."""
    for size, padding in ((3, 1), (7, 3), (1, 0)):
        yield f"torch_conv_{size}", {"kind": "conv2d", "kernel_size": size, "padding": padding}
    for size, padding in ((3, 1), (5, 2)):
        yield f"torch_depthwise_{size}", {"kind": "depthwise", "kernel_size": size, "padding": padding}
    yield "torch_max_pool_3", {"kind": "max_pool2d", "kernel_size": 3, "padding": 1}


def torch_case(case, kind, kernel_size, padding):
    """The arrays of a case by PyTorch, in our layout: `(batch, height, width, channels)` and Keras's kernels."""
    values = torch.tensor(case_input(case).astype(np.float64), requires_grad=True)
    maps, kernels = values.permute(0, 3, 1, 2), {}
    functional = torch.nn.functional
    if kind in ("conv2d", "depthwise"):
        channels = SHAPE[-1]
        shape = (kernel_size, kernel_size, channels, FEATURES if kind == "conv2d" else 1)
        kernel = torch.tensor(weight(f"{case}/layer", "kernel", shape).astype(np.float64), requires_grad=True)
        kernels["grad/layer/kernel"] = kernel
        ours_to_theirs = (3, 2, 0, 1) if kind == "conv2d" else (2, 3, 0, 1)
        groups = 1 if kind == "conv2d" else channels
        output = functional.conv2d(maps, kernel.permute(ours_to_theirs), None, 2, padding, groups=groups)
    else:
        output = functional.max_pool2d(maps, kernel_size, 2, padding)
    output = output.permute(0, 2, 3, 1)
    (output * torch.tensor(draw(f"{case}/cotangent", tuple(output.shape)))).sum().backward()
    grads = {name: kernel.grad for name, kernel in kernels.items()}
    return {
        name: value.detach().numpy() for name, value in ({"output": output, "grad_input": values.grad} | grads).items()
    }


def layer_reference():
    """All arrays of the file."""
    cases = dict(convolutions()) | dict(other_layers())
    found = {case: keras_layer(case, **arguments) for case, arguments in cases.items()}
    found |= {case: keras_case(case, build) for case, build in BLOCKS.items()}
    by_torch = dict(torch_cases())
    found |= {case: torch_case(case, **arguments) for case, arguments in by_torch.items()}
    arrays = {
        f"{case}/{name}": np.asarray(value, np.float32) for case, by in found.items() for name, value in by.items()
    }
    described = cases | {case: {"kind": "block"} for case in BLOCKS} | by_torch
    return arrays | {"cases": np.array(json.dumps(described))}


if __name__ == "__main__":
    keras.config.set_floatx("float64")
    np.savez_compressed(Path(sys.argv[1]) / "layers.npz", **layer_reference())

"""Makes `networks.json` and `networks.npz` of this folder: the layers of Keras's networks, and what they compute.

Run in an environment with `keras` 3.15 and `tensorflow-cpu` 2.21:

    python make_network_reference.py OUT_DIR

Every network is built without its classifier in a fresh session, so that automatic names (`add_3`) are those of a
fresh session. Weights are those of `formula.py` for `NETWORK/LAYER` and the parameter's name, the images `IMAGES`; the
computation is in float64. Nothing is preprocessed.
"""

import json
import sys
from pathlib import Path

import keras
import numpy as np
from formula import weight

# Two images whose halves are odd on one side or the other at every stage: both kinds of padding at stride 2.
SHAPE = (2, 75, 90, 3)
# Of inner maps the file keeps these positions and channels, of the last map every `CHANNEL_STRIDE`th channel.
CORNER = (slice(None), slice(3), slice(3), slice(8))
CHANNEL_STRIDE = 8
# The builder of each network, and layers at several depths.
NETWORKS = {
    "mobilenet_v2": (
        keras.applications.MobileNetV2,
        ("Conv1_relu", "expanded_conv_project_BN", "block_3_pad", "block_5_add", "block_13_depthwise_relu", "out_relu"),
    ),
    "xception": (
        keras.applications.Xception,
        ("block1_conv2_act", "add", "block3_pool", "block8_sepconv2_bn", "add_11", "block14_sepconv2_act"),
    ),
    "resnet50": (
        keras.applications.ResNet50,
        ("conv1_relu", "pool1_pool", "conv2_block1_out", "conv3_block4_out", "conv4_block1_0_bn", "conv5_block3_out"),
    ),
    "densenet121": (
        keras.applications.DenseNet121,
        ("conv1_relu", "pool1", "conv2_block6_concat", "pool2_pool", "conv4_block24_concat", "relu"),
    ),
}


def build(name):
    """The network without its classifier, for `SHAPE`, with the weights of `formula.py`."""
    keras.backend.clear_session()
    builder, _ = NETWORKS[name]
    model = builder(include_top=False, weights=None, input_shape=SHAPE[1:])
    for layer in model.layers:
        for variable in layer.weights:
            variable.assign(weight(f"{name}/{layer.name}", variable.name, variable.shape))
    return model


def described(model):
    """Layers in Keras's order, with class, shape of one example's output and of each parameter; counts."""
    layers = [
        {
            "name": layer.name,
            "class": type(layer).__name__,
            "output": list(model.input_shape[1:] if index == 0 else layer.output.shape[1:]),
            "parameters": {variable.name: list(variable.shape) for variable in layer.weights},
        }
        for index, layer in enumerate(model.layers)
    ]
    trainable = sum(int(np.prod(variable.shape)) for variable in model.trainable_weights)
    return {"layers": layers, "parameters": model.count_params(), "trainable": trainable}


def outputs(name, model):
    """Mean and standard deviation of each image's map at several depths, a corner of it, and channels of the last."""
    names = NETWORKS[name][1]
    inner = keras.Model(model.inputs, [model.get_layer(layer).output for layer in names])
    found: dict[str, np.ndarray] = {}
    for layer, values in zip(names, inner.predict(weight("images", "input", SHAPE), verbose=0), strict=True):
        found[f"{name}/{layer}/mean"] = values.mean((1, 2, 3))
        found[f"{name}/{layer}/std"] = values.std((1, 2, 3))
        found[f"{name}/{layer}/corner"] = values[CORNER]
        if layer == names[-1]:
            found[f"{name}/{layer}/channels"] = values[..., ::CHANNEL_STRIDE]
    return {key: value.astype(np.float32) for key, value in found.items()}


def main():
    keras.config.set_floatx("float64")
    description, arrays = {}, {}
    for name in NETWORKS:
        model = build(name)
        description[name] = described(model)
        arrays |= outputs(name, model)
    folder = Path(sys.argv[1])
    # A line for each layer.
    text = json.dumps(description).replace(' {"name"', '\n{"name"').replace('[{"name"', '[\n{"name"')
    (folder / "networks.json").write_text(text + "\n")
    np.savez_compressed(folder / "networks.npz", **arrays)


if __name__ == "__main__":
    main()

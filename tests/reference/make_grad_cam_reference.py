"""Makes grad_cam.npz with Keras: Grad-CAM of VGG16 under two random heads.

    python make_grad_cam_reference.py FOLDER_OF_THE_CACHE/weights/vgg16_notop.safetensors

Needs keras, tensorflow and safetensors. The picture is `image` of augmentation.npz.
"""

import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from safetensors.numpy import load_file

HERE = Path(__file__).parent
LAYERS = ("block5_conv3", "block4_conv3")


def base(weights, shape):
    model = keras.applications.VGG16(include_top=False, weights=None, input_shape=shape)
    for layer in model.layers:
        if layer.weights:
            names = {name.rsplit("/", 1)[-1].rsplit(".", 1)[-1]: name for name in weights if layer.name in name}
            layer.set_weights([weights[names["kernel"]], weights[names["bias"]]])
    return model


def heat_map(model, kernel, values, layer, target):
    inner = keras.Model(model.inputs, [model.get_layer(layer).output, model.output])
    with tf.GradientTape() as tape:
        maps, last = inner(values)
        logits = tf.reshape(last, (1, -1)) @ kernel
        score = logits[0, target] if kernel.shape[1] > 1 else (logits[0, 0] if target == 1 else -logits[0, 0])
    gradient = tape.gradient(score, maps)
    heat = tf.nn.relu(tf.reduce_sum(maps * tf.reduce_mean(gradient, (1, 2), keepdims=True), -1))[0].numpy()
    return heat / heat.max() if heat.max() > 0 else heat


def main():
    image = np.load(HERE / "augmentation.npz")["image"]
    model = base(load_file(sys.argv[1]), image.shape)
    values = keras.applications.vgg16.preprocess_input(image[None].copy())
    found = {}
    for case, outputs in (("sigmoid", 1), ("softmax", 3)):
        kernel = np.random.RandomState(outputs).normal(0, 0.01, (4 * 4 * 512, outputs)).astype(np.float32)
        for target in range(max(2, outputs)):
            for layer in LAYERS:
                found[f"{case}_{target}_{layer}"] = heat_map(model, kernel, values, layer, target).astype(np.float32)
    np.savez_compressed(HERE / "grad_cam.npz", **found)


if __name__ == "__main__":
    main()

"""Exchange of files with Keras, if it is installed, in both directions."""

import numpy as np
import pytest

from tests.models.pretrained.conftest import write_keras_h5
from vision_transfer.models.pretrained.weights_file import read_weights_file

keras = pytest.importorskip("keras", reason="Keras is not installed; it comes with the extra [peers]")

IMAGE_SIZE = 8


@pytest.fixture
def images():
    return np.random.default_rng(0).normal(size=(2, IMAGE_SIZE, IMAGE_SIZE, 3)).astype(np.float32)


def layers(shapes):
    for layer, parameters in shapes.items():
        features = parameters["bias"][0]
        if layer == "fc1":
            yield keras.layers.Flatten(name="flatten")
        if len(parameters["kernel"]) == 4:
            yield keras.layers.Conv2D(features, 3, padding="same", activation="relu", name=layer)
            yield keras.layers.MaxPooling2D(name=f"{layer}_pool") if layer != "block1_conv2" else keras.layers.ReLU()
        else:
            yield keras.layers.Dense(features, name=layer)


def network(shapes, name="small"):
    return keras.Sequential([keras.Input((IMAGE_SIZE, IMAGE_SIZE, 3)), *layers(shapes)], name=name)


def set_weights(model, params):
    for layer, parameters in params.items():
        model.get_layer(layer).set_weights([parameters["kernel"], parameters["bias"]])


def test_keras_loads_what_is_written(params, shapes, images, tmp_path):
    write_keras_h5(tmp_path / "small.h5", params)
    expected, loaded = network(shapes), network(shapes)
    set_weights(expected, params)
    loaded.load_weights(tmp_path / "small.h5")
    np.testing.assert_array_equal(loaded.predict_on_batch(images), expected.predict_on_batch(images))


@pytest.mark.parametrize("name", ["small.weights.h5", "small.h5"])
def test_what_keras_saves_is_read(name, params, shapes, tmp_path, same):
    model = network(shapes)
    set_weights(model, params)
    model.compile("rmsprop", "mse")
    model.fit(np.zeros((1, IMAGE_SIZE, IMAGE_SIZE, 3)), np.zeros((1, 2)), verbose=0)
    set_weights(model, params)
    if name.endswith(".weights.h5"):
        model.save_weights(tmp_path / name)
    else:
        model.save(tmp_path / name)
    same(read_weights_file(tmp_path / name, shapes).params, params)


@pytest.mark.parametrize("name", ["nested.weights.h5", "nested.h5"])
def test_a_base_is_read_out_of_a_model_around_it(name, params, base_shapes, tmp_path, same):
    base = network(base_shapes, "base")
    base_params = {layer: params[layer] for layer in base_shapes}
    set_weights(base, base_params)
    model = keras.Sequential([base, keras.layers.Flatten(), keras.layers.Dense(2, name="head")])
    model.build((None, IMAGE_SIZE, IMAGE_SIZE, 3))
    (model.save_weights if name.endswith(".weights.h5") else model.save)(tmp_path / name)
    same(read_weights_file(tmp_path / name, base_shapes).params, base_params)


@pytest.mark.parametrize("architecture", ["VGG16", "VGG19"])
def test_keras_applications_load_what_is_written_and_the_base_is_read_back(architecture, tmp_path, same):
    model = getattr(keras.applications, architecture)(weights=None, include_top=False, input_shape=(32, 32, 3))
    rng = np.random.default_rng(0)
    params = {
        layer.name: {
            "kernel": rng.normal(0, 0.02, layer.kernel.shape).astype(np.float32),
            "bias": rng.normal(0, 0.1, layer.bias.shape).astype(np.float32),
        }
        for layer in model.layers
        if "conv" in layer.name
    }
    path = tmp_path / "published.h5"
    write_keras_h5(path, params)
    loaded = getattr(keras.applications, architecture)(weights=str(path), include_top=False, input_shape=(32, 32, 3))
    set_weights(model, params)
    image = rng.normal(size=(1, 32, 32, 3)).astype(np.float32)
    np.testing.assert_array_equal(loaded.predict_on_batch(image), model.predict_on_batch(image))
    shapes = {layer: {name: value.shape for name, value in parameters.items()} for layer, parameters in params.items()}
    same(read_weights_file(path, shapes).params, params)

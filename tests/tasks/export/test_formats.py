"""Each format, run by the library that it is for, gives the network's own answers."""

import json

import jax
import numpy as np
import pytest

from vision_transfer.errors import UserError
from vision_transfer.models.layers import Conv, Dense, Flatten, MaxPool
from vision_transfer.models.network import Network, init
from vision_transfer.tasks.export.inference_network import plain_network
from vision_transfer.tasks.export.keras_layers import keras_layers
from vision_transfer.tasks.export.onnx_graph import onnx_model

# Rounding of float32 in another order; relative to the largest logit, since pixels of 0–255 give large ones.
PROBABILITY, LOGIT = 1e-5, 1e-5


def assert_same(found, own):
    np.testing.assert_allclose(found["probabilities"], own["probabilities"], atol=PROBABILITY)
    np.testing.assert_allclose(found["logits"], own["logits"], atol=LOGIT * np.abs(own["logits"]).max())


def test_stablehlo_runs_where_only_jax_is_installed(kind, exported, by_jax_alone):
    found = by_jax_alone[kind]
    assert_same(found, exported.own[kind])
    np.testing.assert_allclose(found["first_logits"], exported.own[kind]["logits"][:1], rtol=1e-4, atol=1e-4)
    assert tuple(found["platforms"]) == ("cpu", "cuda", "tpu")


def test_keras_agrees(keras_file, exported, by_keras):
    assert_same(by_keras[keras_file], exported.own[keras_file[0]])


def test_onnx_runtime_agrees(kind, exported):
    runtime = pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed; it comes with [export]")
    folder = exported.folders[kind]
    session = runtime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    images = np.load(folder / "images.npy")
    names = ["probabilities", "logits"]
    assert_same(dict(zip(names, session.run(names, {"images": images}), strict=True)), exported.own[kind])
    one = session.run(["logits"], {"images": images[:1]})[0]
    np.testing.assert_allclose(one, exported.own[kind]["logits"][:1], rtol=1e-4, atol=1e-4)
    classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
    assert len(classes) == exported.own[kind]["probabilities"].shape[1]


def test_keras_cannot_pad_a_max_pool_of_negative_values():
    """Its padding is zeros; ours never wins."""
    pool = MaxPool("pool", 3, strides=2, padding=((1, 1), (1, 1)))
    for activation in ("relu", "linear"):
        rows = (Conv("conv", 4, activation=activation), pool)
        network = Network(rows, (Flatten("flat"), Dense("head_logits", 2)), (9, 9, 3))
        plain = plain_network(network, init(network, jax.random.key(0)), 1.0, ("a", "b"))
        if activation == "relu":
            assert [layer.class_name for layer in keras_layers(plain)][1:3] == ["ZeroPadding2D", "MaxPooling2D"]
        else:
            with pytest.raises(UserError, match=r"'pool'.*--format=stablehlo,onnx"):
                keras_layers(plain)


def test_the_network_itself_is_not_changed(network_and_variables):
    network, variables = network_and_variables
    before = jax.tree.map(np.copy, variables)
    onnx_model(plain_network(network, variables, 1.0, ("a", "b")))
    jax.tree.map(np.testing.assert_array_equal, variables, before)

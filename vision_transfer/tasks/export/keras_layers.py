"""The network as a Keras Sequential: configuration and weights, built from the layer table without Keras."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vision_transfer.models.layers import BatchNorm, Conv, Dense, Dropout, Flatten, GlobalAveragePool, Layer, MaxPool
from vision_transfer.tasks.export.inference_network import PlainNetwork

MODEL_NAME = "vision_transfer"
# Keras 3's name for the state of a dropout's random generator, and its initial value.
SEED_STATE, FIRST_SEED = "seed_generator", np.array([0, 0], np.uint32)


@dataclass(frozen=True)
class KerasLayer:
    """A layer of a Sequential; its weights have Keras's names and order, and a `seed` means a random generator."""

    class_name: str
    config: dict[str, Any]
    weights: Mapping[str, np.ndarray] = field(default_factory=dict)
    seed: bool = False

    @property
    def name(self) -> str:
        """The layer's name."""
        return self.config["name"]


def keras_layers(plain: PlainNetwork) -> list[KerasLayer]:
    """The layers in order, without the input; the last gives probabilities, the one before it logits."""
    layers = []
    if np.any(plain.scale != 1) or np.any(plain.offset):
        scale, offset = plain.scale.tolist(), plain.offset.tolist()
        layers.append(_layer("Rescaling", "preprocessing", scale=scale, offset=offset))
    for layer in plain.layers:
        layers += _layers_of(layer, plain)
    softmax = {"units": len(plain.classes), "activation": "softmax", "use_bias": False, "trainable": False}
    return [*layers, _layer("Dense", "probabilities", {"kernel": plain.class_kernel}, **softmax)]


def _layers_of(layer: Layer, plain: PlainNetwork) -> list[KerasLayer]:
    params, name = plain.params.get(layer.name, {}), layer.name
    match layer:
        case Conv():
            size, weights = [layer.kernel_size] * 2, {key: params[key] for key in ("kernel", "bias")}
            arguments = {"filters": layer.features, "kernel_size": size, "padding": layer.padding}
            return [_layer("Conv2D", name, weights, **arguments, activation=layer.activation)]
        case MaxPool():
            size = [layer.size] * 2
            return [_layer("MaxPooling2D", name, pool_size=size, strides=size, padding="valid")]
        case BatchNorm():
            stats = plain.batch_stats[name]
            weights = {"gamma": params["scale"], "beta": params["bias"]}
            weights |= {"moving_mean": stats["mean"], "moving_variance": stats["variance"]}
            norm = _layer("BatchNormalization", name, weights, momentum=layer.momentum, epsilon=layer.epsilon)
            if layer.activation == "linear":
                return [norm]
            return [norm, _layer("Activation", f"{name}_{layer.activation}", activation=layer.activation)]
        case GlobalAveragePool():
            return [_layer("GlobalAveragePooling2D", name)]
        case Flatten():
            return [_layer("Flatten", name)]
        case Dense():
            weights = {key: params[key] for key in ("kernel", "bias")}
            return [_layer("Dense", name, weights, units=layer.features, activation=layer.activation)]
        case Dropout():
            return [KerasLayer("Dropout", {"name": name, "rate": layer.rate}, seed=True)]
        case _:
            raise NotImplementedError(f"Keras's form of {layer}")


def _layer(class_name: str, name: str, weights: Mapping[str, np.ndarray] | None = None, **arguments: Any) -> KerasLayer:
    return KerasLayer(class_name, {"name": name, **arguments}, weights or {})

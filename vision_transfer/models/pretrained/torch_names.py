"""Tensors under PyTorch's names, `layer1.0.conv1.weight`, with or without one prefix before all of them.

Kernels are HWIO here and OIHW in PyTorch; dense kernels are in × out here and out × in there. PyTorch flattens maps in
the order channel, height, width.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vision_transfer.models.pretrained.tensors import (
    CONVOLUTION_RANK,
    KERNEL,
    Layout,
    Shapes,
    StoredTensor,
    Wanted,
    is_depthwise,
    oihw_or_same,
)

# Names of parameters here and in PyTorch.
PARAMETERS = {
    "kernel": "weight",
    "depthwise_kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "variance": "running_var",
}
# PyTorch's count of training steps, of no use to anybody else.
COUNTER = "num_batches_tracked"
# A checkpoint of a training has these of each parameter.
OPTIMIZER_STATE = (".step", ".exp_avg", ".exp_avg_sq", ".max_exp_avg_sq", ".momentum_buffer", ".square_avg")
ENDINGS = tuple(f".{name}" for name in (*dict.fromkeys(PARAMETERS.values()), COUNTER))


@dataclass(frozen=True)
class TorchNames:
    """The names of a network's layers in a PyTorch library, where its tensors mean the same as here.

    Attributes:
        library: the library, for messages.
        modules: layer → module path; layers that the library does not have are left out.
        preprocessing: of the images on which weights with these names were trained.
    """

    library: str
    modules: Mapping[str, str]
    preprocessing: str = "torch"


def has_torch_names(stored: Sequence[StoredTensor]) -> bool:
    """Whether most tensors, without an optimizer's state, have names as PyTorch's modules give them."""
    named = [tensor.name.endswith(ENDINGS) for tensor in stored if not tensor.name.endswith(OPTIMIZER_STATE)]
    return 2 * sum(named) > len(named)


def by_torch_names(
    stored: Sequence[StoredTensor], shapes: Shapes, known: Sequence[TorchNames]
) -> tuple[list[Wanted], TorchNames | None]:
    """The tensors of a network under the one of several namings, and the one prefix, under which most are found.

    Where several prefixes serve equally (a network and its moving average), each tensor has several candidates. The
    naming is None if not one tensor has any of its names.
    """
    by_name = {tensor.name: tensor for tensor in stored}
    tries = [(names, prefix) for names in known for prefix in _prefixes(by_name, shapes, names)]
    counts = [
        sum(_tensor_name(names, prefix, layer, parameter) in by_name for layer, parameter in _pairs(shapes))
        for names, prefix in tries
    ]
    best = [one for one, count in zip(tries, counts, strict=True) if count == max(counts)]
    wanted = [
        Wanted(
            layer,
            parameter,
            shapes[layer][parameter],
            tuple(
                by_name[name]
                for name in dict.fromkeys(_tensor_name(*one, layer, parameter) for one in best)
                if name in by_name
            ),
            _layouts(shapes, layer, parameter),
        )
        for layer, parameter in _pairs(shapes)
    ]
    return wanted, best[0][0] if best else None


def _pairs(shapes: Shapes) -> list[tuple[str, str]]:
    return [(layer, parameter) for layer, parameters in shapes.items() for parameter in parameters]


def _tensor_name(names: TorchNames, prefix: str, layer: str, parameter: str) -> str:
    return f"{prefix}{names.modules.get(layer, '?')}.{PARAMETERS.get(parameter, parameter)}"


def _prefixes(by_name: Mapping[str, StoredTensor], shapes: Shapes, names: TorchNames) -> list[str]:
    """The prefixes of the network's first tensor in the file: `module.`, nothing, or both."""
    first = next((layer for layer in shapes if layer in names.modules), None)
    if first is None:
        return []
    ending = f"{names.modules[first]}.weight"
    prefixes = [name.removesuffix(ending) for name in by_name if name.endswith(ending)]
    return [prefix for prefix in prefixes if prefix == "" or prefix.endswith(".")]


def _layouts(shapes: Shapes, layer: str, parameter: str) -> tuple[Layout, ...]:
    shape = shapes[layer][parameter]
    if parameter != KERNEL or len(shape) == CONVOLUTION_RANK:
        return oihw_or_same(shape)
    inputs, outputs = shape
    channels, side = _flattened_map(shapes, layer, inputs)
    return (
        Layout((outputs, inputs), _dense_to_keras(outputs, channels, side)),
        # timm keeps dense layers as convolutions over the whole map
        Layout((outputs, channels, side, side), _dense_to_keras(outputs, channels, side)),
    )


def _flattened_map(shapes: Shapes, layer: str, inputs: int) -> tuple[int, int]:
    """Channels and side of the square map that is flattened before a dense layer; (inputs, 1) if there is none."""
    layers = list(shapes)
    # Norms keep the channels of the layer before them.
    kernels = [shapes[one][KERNEL] for one in layers[: layers.index(layer)] if KERNEL in shapes[one]]
    kernel = kernels[-1] if kernels else ()
    if len(kernel) != CONVOLUTION_RANK:
        return inputs, 1
    channels = kernel[-2] if is_depthwise(kernel) else kernel[-1]
    side = math.isqrt(inputs // channels)
    return (channels, side) if side * side * channels == inputs else (inputs, 1)


def _dense_to_keras(outputs: int, channels: int, side: int) -> Callable[[np.ndarray], np.ndarray]:
    def convert(kernel: np.ndarray) -> np.ndarray:
        return kernel.reshape(outputs, channels, side, side).transpose(2, 3, 1, 0).reshape(-1, outputs)

    return convert

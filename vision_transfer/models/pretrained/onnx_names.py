"""Tensors under the names that converters from Keras and this package give them in ONNX files."""

import re
from collections.abc import Mapping, Sequence

from vision_transfer.models.pretrained.keras_names import accepted_words, parameter_word
from vision_transfer.models.pretrained.tensors import Shapes, StoredTensor, Wanted, oihw_or_same


def by_onnx_names(stored: Sequence[StoredTensor], shapes: Shapes) -> list[Wanted]:
    """Tensors with the layer's name, possibly numbered, as a word (`functional_1/block1_conv1_1/Squeeze:0`).

    The tensors of a layer are distinguished by their number of dimensions and, where several have the same, by their
    last words. Kernels of convolutions are OIHW; those of dense layers are in × out, as converters from Keras leave
    them.
    """
    return [
        Wanted(layer, parameter, shape, _candidates(stored, layer, parameters, parameter), oihw_or_same(shape))
        for layer, parameters in shapes.items()
        for parameter, shape in parameters.items()
    ]


def _candidates(
    stored: Sequence[StoredTensor], layer: str, parameters: Mapping[str, tuple[int, ...]], parameter: str
) -> tuple[StoredTensor, ...]:
    found = [
        tensor
        for tensor in stored
        if len(tensor.shape) == len(parameters[parameter])
        and any(word == layer or re.sub(r"_\d+$", "", word) == layer for word in tensor.words)
    ]
    words = accepted_words(parameters, parameter)
    return tuple([tensor for tensor in found if parameter_word(tensor.words[-1]) in words] or found)

"""Layers and tensors under the names that Keras gives them in any version and format, and converters from it in ONNX.

Where nobody named a layer, Keras calls it by its class and a number, `conv2d_3`, and the number depends on what else
was built in the same process. Such layers are matched in their order, with as many layers of the same class.

Keras loads its own releases by order alone, so they still have the names that its layers had when they were saved:
Xception's those of Keras 1 (`convolution2d_1`), DenseNet's with a slash (`conv1/conv`), MobileNetV2's those of its
first version (`mobl1_conv_1_expand`). These are known here.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import pairwise

from vision_transfer.models.pretrained.tensors import (
    CONVOLUTION_RANK,
    Layout,
    Shapes,
    StoredTensor,
    Wanted,
    is_depthwise,
    oihw_or_same,
)

# Names of tensors in all versions of Keras, and here; a longer name that ends in another comes first.
PARAMETERS = {
    "depthwise_kernel": "depthwise_kernel",
    "pointwise_kernel": "pointwise_kernel",
    "kernel": "kernel",
    "bias": "bias",
    "moving_mean": "mean",
    "moving_variance": "variance",
    # Keras 1, where the variance was called so
    "running_mean": "mean",
    "running_std": "variance",
    "gamma": "scale",
    "beta": "bias",
    "W": "kernel",
    "b": "bias",
}
# The order in which Keras 3 numbers the tensors of a layer.
NUMBERED = ("depthwise_kernel", "kernel", "pointwise_kernel", "scale", "bias", "mean", "variance")
CONVOLUTION, DEPTHWISE, SEPARABLE = "conv2d", "depthwise_conv2d", "separable_conv2d"
NORM, DENSE = "batch_normalization", "dense"
# Names of classes in Keras 1.
KERAS_1_KINDS = {"convolution2d": CONVOLUTION, "separableconvolution2d": SEPARABLE, "batchnormalization": NORM}
KINDS = (CONVOLUTION, DEPTHWISE, SEPARABLE, NORM, DENSE, *KERAS_1_KINDS)
AUTOMATIC_NAME = re.compile(rf"({'|'.join(KINDS)})(?:_(\d{{1,9}}))?")
# Names of MobileNetV2's layers in Keras's release of its weights, and today.
RENAMED = (
    (re.compile(r"mobl0_conv_0_(\w+)"), r"expanded_conv_\1"),
    (re.compile(r"bn0_conv(?:_0)?_bn_(\w+)"), r"expanded_conv_\1_BN"),
    (re.compile(r"mobl(\d+)_conv_\d+_(\w+)"), r"block_\1_\2"),
    (re.compile(r"bn(\d+)_conv(?:_\d+)?_bn_(\w+)"), r"block_\1_\2_BN"),
    (re.compile(r"Logits"), "predictions"),
)


@dataclass(frozen=True)
class _UnnamedLayer:
    """A layer with an automatic name: its class, the groups around it, what orders it, its name and its tensors."""

    kind: str
    around: tuple[str, ...]
    place: tuple[int, int]
    tensors: tuple[StoredTensor, ...]


def by_keras_names(stored: Sequence[StoredTensor], shapes: Shapes) -> list[Wanted]:
    """Tensors whose last word is the parameter, with the layer's name among the others; all in Keras's layout."""
    named, renamed = _by_name(stored, lambda words: words), _by_name(stored, _earlier_names)
    unnamed, remarks = _by_order(stored, shapes, named.keys() | renamed.keys())
    wanted = []
    for layer, parameters in shapes.items():
        of_layer = unnamed.get(layer)
        if of_layer is None:
            of_layer = () if layer in remarks else tuple(named.get(layer) or renamed.get(layer, ()))
        for parameter, shape in parameters.items():
            words = accepted_words(parameters, parameter)
            candidates = tuple(one for one in of_layer if parameter_word(one.words[-1]) in words)
            wanted.append(Wanted(layer, parameter, shape, candidates, (Layout(shape),), remarks.get(layer, "")))
    return wanted


def _by_name(
    stored: Sequence[StoredTensor], names: Callable[[tuple[str, ...]], Iterable[str]]
) -> dict[str, list[StoredTensor]]:
    """The tensors by each of the names that the words around them give."""
    found: dict[str, list[StoredTensor]] = {}
    for tensor in stored:
        for name in dict.fromkeys(names(tensor.words[:-1])):
            found.setdefault(name, []).append(tensor)
    return found


def _earlier_names(words: tuple[str, ...]) -> Iterator[str]:
    """Today's names of layers that Keras once called otherwise: `conv1/conv` is `conv1_conv`."""
    yield from (f"{first}_{second}" for first, second in pairwise(words))
    for word in words:
        yield from (match.expand(today) for pattern, today in RENAMED if (match := pattern.fullmatch(word)))


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


def parameter_word(name: str) -> str:
    """`kernel:0`, `kernel_1:0`, `block1_conv1_W_1:0` → `kernel`; `moving_mean` → `mean`; a number stays one."""
    bare = re.sub(r"(?<=.)_\d+$", "", re.sub(r":\d+$", "", name))
    for ending, parameter in PARAMETERS.items():
        if bare == ending or bare.endswith(f"_{ending}"):
            return parameter
    return bare


def accepted_words(parameters: Mapping[str, object], parameter: str) -> set[str]:
    """The words for a parameter of a layer with these parameters: its name, its number, and for a depthwise kernel
    also the other name that Keras has given it.
    """
    number = [name for name in NUMBERED if name in parameters].index(parameter) if parameter in NUMBERED else None
    words = {parameter} if number is None else {parameter, str(number)}
    if "pointwise_kernel" not in parameters:
        words |= {"kernel": {"depthwise_kernel"}, "depthwise_kernel": {"kernel"}}.get(parameter, set())
    return words


def _by_order(
    stored: Sequence[StoredTensor], shapes: Shapes, named: Set[str]
) -> tuple[dict[str, tuple[StoredTensor, ...]], dict[str, str]]:
    """The tensors of the layers that are matched by order; and for those that cannot be, what the file has instead.

    `named` are all names of layers in the file.
    """
    of_kind: dict[str, list[str]] = {}
    for layer, parameters in shapes.items():
        of_kind.setdefault(_kind(parameters), []).append(layer)
    unnamed = _unnamed_layers(stored)
    waiting: dict[str, list[str]] = {}
    for kind, layers in of_kind.items():
        with_names = [layer for layer in layers if not AUTOMATIC_NAME.fullmatch(layer)]
        if named.isdisjoint(with_names):
            waiting[kind] = layers
        elif automatic := [layer for layer in layers if AUTOMATIC_NAME.fullmatch(layer)]:
            waiting[kind] = automatic
    around = _one_place(unnamed, waiting)
    matched: dict[str, tuple[StoredTensor, ...]] = {}
    remarks: dict[str, str] = {}
    for kind, layers in waiting.items():
        here = [layer for layer in unnamed if layer.kind == kind and layer.around == around]
        if around is not None:
            matched |= {layer: one.tensors for layer, one in zip(layers, here, strict=True)}
        elif found := sum(layer.kind == kind for layer in unnamed):
            remarks |= dict.fromkeys(layers, f"{found} layers called {kind} by Keras itself, the network {len(layers)}")
    return matched, remarks


def _one_place(unnamed: Sequence[_UnnamedLayer], waiting: Mapping[str, Sequence[str]]) -> tuple[str, ...] | None:
    """The only groups in which there are as many unnamed layers of each kind as the network waits for."""
    fitting = [
        around
        for around in {layer.around for layer in unnamed}
        if all(
            sum((layer.kind, layer.around) == (kind, around) for layer in unnamed) == len(layers)
            for kind, layers in waiting.items()
        )
    ]
    return fitting[0] if waiting and len(fitting) == 1 else None


def _unnamed_layers(stored: Sequence[StoredTensor]) -> list[_UnnamedLayer]:
    found: dict[tuple[str, tuple[str, ...], int], list[StoredTensor]] = {}
    for tensor in stored:
        if len(tensor.words) > 1 and (match := AUTOMATIC_NAME.fullmatch(name := tensor.words[-2])):
            around = tuple(word for word in tensor.words[:-2] if word != name)
            kind = KERAS_1_KINDS.get(match[1], match[1])
            found.setdefault((kind, around, int(match[2] or 0)), []).append(tensor)
    layers = [
        _UnnamedLayer(kind, around, (min(one.place for one in tensors), number), tuple(tensors))
        for (kind, around, number), tensors in found.items()
    ]
    return sorted(layers, key=lambda layer: layer.place)


def _kind(parameters: Mapping[str, tuple[int, ...]]) -> str:
    """Keras's class of a layer with these parameters."""
    if "scale" in parameters:
        return NORM
    if "pointwise_kernel" in parameters:
        return SEPARABLE
    if "depthwise_kernel" in parameters:
        return DEPTHWISE
    kernel = parameters.get("kernel", ())
    if len(kernel) != CONVOLUTION_RANK:
        return DENSE
    return DEPTHWISE if is_depthwise(kernel) else CONVOLUTION

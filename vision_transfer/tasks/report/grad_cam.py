"""Grad-CAM of a finished run on some of its test images: where the evidence for the predicted class lies."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from vision_transfer.data.images.resize import resize
from vision_transfer.models.layers import Conv, layer_names
from vision_transfer.models.network import Network
from vision_transfer.runs.load import load_run
from vision_transfer.runtime.console import Screen
from vision_transfer.tasks.explain.activations import last_map
from vision_transfer.tasks.explain.figures import superimpose
from vision_transfer.tasks.explain.grad_cam import grad_cam
from vision_transfer.tasks.report.thumbnails import shrunk

# All batches are of this size, the last one padded, so that one program serves every run of a network. Compiling it is
# most of the work, and takes half as long again for batches of 12.
TOGETHER = 2
# Height and width below which a map says little of where something is: small images leave 1×1 behind the last pool.
SMALLEST_MAP = 3


def heat_layer(network: Network) -> str:
    """The last convolution whose map has places to tell apart; the last one where none has.

    Raises:
        UserError: the network has no convolution.
    """
    last = last_map(network)
    shape_of = dict(zip(layer_names(network.layers), network.shapes[1:], strict=True))
    names = [layer.name for layer in network.layers if isinstance(layer, Conv)]
    return next((name for name in reversed(names) if min(shape_of[name][:2]) >= SMALLEST_MAP), last)


def heat_overlays(
    path: Path,
    images: Mapping[str, UInt8[np.ndarray, "height width channels"]],
    targets: Sequence[int],
    cache_dir: Path,
    screen: Screen,
) -> tuple[dict[str, UInt8[np.ndarray, "height width 3"]], str]:
    """Thumbnails with heat maps laid over them.

    Args:
        path: folder of a finished run.
        images: by name, at their own size.
        targets: class number to look for in each.
        cache_dir: root of all caches, which must hold the pretrained weights.
        screen: for progress bars.

    Returns:
        The thumbnails by name, and the layer that the maps are of.

    Raises:
        UserError: the run's checkpoints or weights are gone, or its network has no convolution.
    """
    run = load_run(path, cache_dir, screen, allow_download=False)
    layer = heat_layer(run.network)
    size, resampling = run.network.input_shape[0], run.config.dataset.resampling
    batch = np.stack([resize(image, size, resampling) for image in images.values()])
    heat = []
    for first in range(0, len(batch), TOGETHER):
        places = np.minimum(np.arange(first, first + TOGETHER), len(batch) - 1)
        heat += list(grad_cam(run.network, run.variables, batch[places], layer, np.asarray(targets)[places]))
    overlays = {name: superimpose(shrunk(image), own) for (name, image), own in zip(images.items(), heat, strict=False)}
    return overlays, layer

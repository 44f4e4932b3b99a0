"""Features of images for other programs: the outputs of any layer of a network, as one array."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Real, UInt8

from vision_transfer.data.images.decode import UndecodableError, decode_file
from vision_transfer.data.images.parallel import map_in_order
from vision_transfer.data.images.resize import resize
from vision_transfer.data.rows import TakenRows
from vision_transfer.errors import UserError
from vision_transfer.models.inference import infer_batches, infer_stream, on_devices
from vision_transfer.models.network import Network, Params
from vision_transfer.predict.image_files import find_images
from vision_transfer.runtime import hosts
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.devices import local_mesh, padded_batch

Images = Real[np.ndarray, "images height width channels"]


def features(
    network: Network,
    variables: dict[str, Params],
    images: Images | str | Path | Sequence[str | Path],
    *,
    layer: str | None = None,
    batch_size: int = 32,
    screen: Screen | None = None,
) -> Float32[np.ndarray, "images ..."]:
    """Outputs of a layer for images, each computed once, on all local devices; several hosts share out the batches.

    Examples:
        >>> network, variables = load("efficientnet_lite0")
        >>> features(network, variables, "photos/*.jpg").shape
        (200, 1280)

    Args:
        network: as `load` gives it.
        variables: as `load` gives them.
        images: `(images, height, width, channels)`, values 0–255, of the network's size; or image files: a file, a
            folder (all images below it), a pattern, or a list of files. Files are decoded a few batches ahead, and
            resized bilinearly to the network's size.
        layer: a row of the network; by default the last of the backbone.
        batch_size: images that are computed together.
        screen: shows progress; nothing by default.

    Returns:
        `(images, ...) float32`, in the order of the images; that of a folder or pattern is alphabetical.

    Raises:
        UserError: no images, a file that cannot be decoded, images of another shape, or an unknown layer.
    """
    screen = screen or Screen().silent()
    files: list[str] = []
    if isinstance(images, np.ndarray) or hasattr(images, "__array__"):
        pixels = np.asarray(images)
    elif isinstance(images, str | Path):
        pixels, files = None, find_images(str(images))
    else:
        pixels, files = None, [str(file) for file in images]
    shape = (len(files), *network.input_shape) if pixels is None else pixels.shape
    if shape[1:] != network.input_shape or not shape[0]:
        raise UserError(
            f"features: got images of shape {shape}; this network takes (images, "
            f"{', '.join(map(str, network.input_shape))}), at least one (load has image_size, files are resized)"
        )
    stop = layer or network.backbone[-1].name
    network.index(stop)
    mesh = local_mesh()
    size = padded_batch(min(batch_size, shape[0]), mesh)

    def compute(firsts: Sequence[int]) -> Iterator[np.ndarray]:
        rows = [row for first in firsts for row in range(first, min(first + size, shape[0]))]
        if pixels is None:
            on_mesh = on_devices(network, variables, mesh, batch_size=size, stop=stop)
            with closing(_decoded([files[row] for row in rows], network, screen)) as decoded:
                found = infer_stream(network, on_mesh, _batches(decoded, size), mesh, stop=stop)
                for first, outputs in zip(firsts, found, strict=True):
                    yield outputs[: shape[0] - first]
        else:
            own = TakenRows(pixels, np.array(rows, np.int64))
            yield from infer_batches(network, variables, own, mesh, batch_size=size, stop=stop)

    return np.concatenate(list(hosts.shared_out(range(0, shape[0], size), compute))).astype(np.float32)


def _batches(
    images: Iterator[UInt8[np.ndarray, "height width channels"]], size: int
) -> Iterator[UInt8[np.ndarray, "batch height width channels"]]:
    """The images in batches of equal size; the last one is repeated where they end."""
    while chunk := list(islice(images, size)):
        yield np.stack([*chunk, *[chunk[-1]] * (size - len(chunk))])


def _decoded(
    files: list[str], network: Network, screen: Screen
) -> Generator[UInt8[np.ndarray, "height width channels"]]:
    size, _, channels = network.input_shape

    def decode(file: str) -> UInt8[np.ndarray, "height width channels"]:
        try:
            return resize(decode_file(Path(file), channels), size, "bilinear")
        except UndecodableError as reason:
            raise UserError(f"features: {file}: {reason}") from reason

    return map_in_order(decode, files, screen=screen, title="Features")

"""From a source's examples to arrays of one size: every image decoded, resized and digested, on all cores."""

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from vision_transfer.data.dataset import DIGEST_BYTES, Skipped, Split, digest_image
from vision_transfer.data.images.decode import UndecodableError
from vision_transfer.data.images.parallel import map_in_order
from vision_transfer.data.images.resize import resize
from vision_transfer.data.source import Examples
from vision_transfer.runtime.console import Screen


@dataclass(frozen=True)
class Form:
    """What images are decoded to: `size` x `size` pixels, `channels`, and how they are resized."""

    size: int
    channels: int
    resampling: str


@dataclass(frozen=True)
class Decoded:
    """One decoded image, its place among its split's examples, and its digest."""

    index: int
    image: UInt8[np.ndarray, "size size channels"]
    digest: bytes


def decode_examples(examples: Examples, form: Form, *, screen: Screen, title: str) -> Generator[Decoded | Skipped]:
    """Decodes examples in their order; one that gives no image comes as `Skipped`."""

    def decode(index: int) -> Decoded | Skipped:
        try:
            image = resize(examples.pixels(index, form.channels), form.size, form.resampling)
        except UndecodableError as reason:
            return Skipped(examples.files[index], str(reason))
        return Decoded(index, image, digest_image(image))

    yield from map_in_order(decode, range(len(examples.files)), screen=screen, title=title)


def decode_in_memory(
    examples: Examples, form: Form, *, screen: Screen, title: str
) -> tuple[Split, tuple[Skipped, ...]]:
    """A split decoded into memory, for sources too small to be worth a cache."""
    results = list(decode_examples(examples, form, screen=screen, title=title))
    decoded = [result for result in results if isinstance(result, Decoded)]
    images = np.empty((len(decoded), form.size, form.size, form.channels), np.uint8)
    for place, result in enumerate(decoded):
        images[place] = result.image
    split = Split(
        images=images,
        labels=examples.labels[[result.index for result in decoded]],
        files=tuple(examples.files[result.index] for result in decoded),
        digests=stack_digests([result.digest for result in decoded]),
    )
    return split, tuple(result for result in results if isinstance(result, Skipped))


def stack_digests(digests: list[bytes]) -> UInt8[np.ndarray, "examples 16"]:
    """Digests as an array, one a row."""
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, DIGEST_BYTES)

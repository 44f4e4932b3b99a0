"""Images that are decoded each time they are used, for data whose decoded images do not fit the disk.

They are the rows of `dataset.decode=stream`. Threads decode them in the order in which they are asked for, those of the
next steps while the devices compute. A row has the same bits each time: it is compared with its digest in the cache.
"""

import weakref
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from vision_transfer.data.dataset import digest_image
from vision_transfer.data.images.decode import UndecodableError
from vision_transfer.data.images.parallel import TASKS_PER_THREAD
from vision_transfer.data.images.resize import Form, resize
from vision_transfer.data.rows import row_numbers
from vision_transfer.data.source import Examples
from vision_transfer.errors import UserError
from vision_transfer.runtime.jax_setup import cores

# Bytes of decoded rows that wait to be taken: two chunks of a feed, of which one is being taken.
AHEAD_BYTES = 128 << 20


@dataclass(frozen=True, eq=False)
class DecodedRows:
    """The images of examples, decoded and resized when rows are taken; `digests` has `digest_image` of each.

    Taking rows needs their memory, and that of `AHEAD_BYTES` of rows asked for ahead. Several threads may take rows.
    """

    examples: Examples
    form: Form
    digests: UInt8[np.ndarray, "rows 16"]
    _ahead: dict[int, Future[np.ndarray]] = field(default_factory=dict, init=False, repr=False)
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(cores()), init=False, repr=False)

    def __post_init__(self):
        """Has rows that nobody will take given up: otherwise the program would decode them before it ends."""
        weakref.finalize(self, self._pool.shutdown, wait=False, cancel_futures=True)

    def __len__(self) -> int:
        return len(self.digests)

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of rows, height, width, channels."""
        return len(self), self.form.size, self.form.size, self.form.channels

    @property
    def dtype(self) -> np.dtype:
        """Unsigned bytes."""
        return np.dtype(np.uint8)

    def __getitem__(self, rows: Any) -> UInt8[np.ndarray, "*rows size size channels"]:
        """The rows with these numbers: an array of integers, a slice, or a single number.

        Raises:
            UserError: a file or record has changed since its images were decoded first.
        """
        numbers = row_numbers(rows, len(self))
        places: dict[int, list[int]] = {}
        for place, number in enumerate(numbers.reshape(-1).tolist()):
            places.setdefault(number, []).append(place)
        taken = np.empty((numbers.size, *self.shape[1:]), np.uint8)
        decoding = (self._ahead.pop(number, None) or self._decode(number) for number in places)
        waiting = deque(islice(decoding, TASKS_PER_THREAD * cores()))
        for row_places in places.values():
            taken[row_places] = waiting.popleft().result()
            waiting.extend(islice(decoding, 1))
        return taken.reshape(*numbers.shape, *self.shape[1:])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All of them in memory, as numpy's functions ask for them."""
        del copy  # always
        return self[:].astype(dtype or self.dtype, copy=False)

    def will_need(self, rows: Int[np.ndarray, "rows"]) -> None:
        """Starts to decode the rows with these numbers, as many as may wait; gives up the oldest that nobody took."""
        most = max(1, AHEAD_BYTES // max(1, int(np.prod(self.shape[1:]))))
        new = [number for number in dict.fromkeys(rows.tolist()) if number not in self._ahead][:most]
        for number in list(self._ahead)[: max(0, len(self._ahead) + len(new) - most)]:
            # another thread may have taken it meanwhile
            if (decoding := self._ahead.pop(number, None)) is not None:
                decoding.cancel()
        for number in new:
            self._ahead[number] = self._decode(number)

    def _decode(self, number: int) -> Future[np.ndarray]:
        return self._pool.submit(_decoded, self.examples, self.form, number, self.digests[number].tobytes())


def _decoded(examples: Examples, form: Form, number: int, expected: bytes) -> UInt8[np.ndarray, "size size channels"]:
    try:
        pixels = resize(examples.pixels(number, form.channels), form.size, form.resampling)
    except UndecodableError as reason:
        found = str(reason)
    else:
        if digest_image(pixels) == expected:
            return pixels
        found = "it has other pixels"
    raise UserError(
        f"--config.dataset.decode=stream: {examples.files[number]} has changed since it was first decoded ({found}). "
        "Run the same command again: it takes the data as it is now"
    )

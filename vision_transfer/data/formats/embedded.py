"""The embedded data set: scikit-learn's handwritten digits, which are on every machine.

1,797 real 8x8 images in 10 classes (Alpaydin and Kaynak 1998, UCI "Optical Recognition of Handwritten Digits"),
enlarged to RGB. Few training images a class, so that fine-tuning has something to win.
"""

import numpy as np

from vision_transfer.data.formats.arrays import array_examples, arrays_digest
from vision_transfer.data.source import Source
from vision_transfer.data.subset import rank_in_class

NAME = "embedded digits"
DEFAULT_SIZE = 48
TRAIN_PER_CLASS = 60
VALIDATION_PER_CLASS = 20
# The stored grey levels are 0 to 16.
_LEVELS = 16
_SIZE = 8


def embedded_source() -> Source:
    """Digits with 60 training and 20 validation images a class; the others, 997, are the test split."""
    from sklearn.datasets import load_digits

    pixels, targets = load_digits(return_X_y=True)
    images = np.rint(np.asarray(pixels) * (255 / _LEVELS)).astype(np.uint8).reshape(-1, _SIZE, _SIZE, 1)
    labels = np.asarray(targets).astype(np.int32)
    examples = array_examples("digits", images, labels)
    ranks = rank_in_class(labels, examples.files, "embedded", seed=0)
    train = ranks < TRAIN_PER_CLASS
    validation = ~train & (ranks < TRAIN_PER_CLASS + VALIDATION_PER_CLASS)
    chosen = {"train": train, "validation": validation, "test": ~train & ~validation}
    return Source(
        name=NAME,
        classes=tuple(str(digit) for digit in range(10)),
        splits={split: examples.take(np.flatnonzero(mask).astype(np.int32)) for split, mask in chosen.items()},
        content=arrays_digest({"all": (images, labels)}),
        default_size=DEFAULT_SIZE,
        note="scikit-learn's handwritten digits (1,797 images of 8x8, enlarged), which come with this program.",
        in_memory=True,
    )

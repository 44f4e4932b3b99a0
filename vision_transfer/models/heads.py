"""Tables of heads: the layers after the backbone, which end in one logit per class (or a single one for two)."""

from itertools import combinations
from typing import Literal

from vision_transfer.models.layers import Activation, Dense, Dropout, Flatten, Layer

DropoutPlace = Literal["before_hidden", "before_output"]

# Names of the last layer, and of the one before it in a pairwise head.
LOGITS, PAIRS = "head_logits", "head_pairs"


def head_layers(
    outputs: int,
    *,
    flatten: bool,
    hidden: tuple[int, ...] = (),
    activation: Activation = "linear",
    dropout: float = 0.0,
    dropout_place: DropoutPlace = "before_output",
) -> tuple[Layer, ...]:
    """The table of a head; `outputs` is 1 for a sigmoid over two classes, else one per class.

    The single dropout layer (`dropout` 0: none) is before the first hidden layer or before the last layer.
    """
    drop = (Dropout("head_dropout", dropout),) if dropout else ()
    first: tuple[Layer, ...] = (Flatten("head_flatten"),) if flatten else ()
    dense = tuple(Dense(f"head_dense{i}", features, activation) for i, features in enumerate(hidden, start=1))
    logits = Dense(LOGITS, outputs)
    if dropout_place == "before_hidden":
        return (*first, *drop, *dense, logits)
    return (*first, *dense, *drop, logits)


def pairwise_head(classes: int) -> tuple[Layer, ...]:
    """The table of a head with a sigmoid for each of `class_pairs`, and for each class the sum of its votes."""
    return (Dense(PAIRS, len(class_pairs(classes)), "sigmoid"), Dense(LOGITS, classes))


def class_pairs(classes: int) -> list[tuple[int, int]]:
    """The pairs of classes, each once; a pair's sigmoid is its vote for the first of them."""
    return list(combinations(range(classes), 2))

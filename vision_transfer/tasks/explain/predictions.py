"""The likeliest classes of an image by name, the class that a user names, and the names of ImageNet's classes."""

from collections.abc import Sequence
from importlib import resources

import numpy as np
from jaxtyping import Float

from vision_transfer.errors import UserError, nearest_names
from vision_transfer.predict.temperature import probabilities

IMAGENET_FILE = "imagenet_classes.txt"
TOP = 3
# A longer list of classes is not printed in full.
MOST_NAMES_LISTED = 20


def top_predictions(
    logits: Float[np.ndarray, "examples outputs"], classes: Sequence[str], temperature: float = 1.0, top: int = TOP
) -> list[list[tuple[int, str]]]:
    """Number and text (`African_elephant 0.909`) of each example's `top` likeliest classes, the likeliest first."""
    shares = probabilities(logits, temperature)
    order = np.argsort(-shares, axis=1, kind="stable")[:, :top]
    return [
        [(number, f"{classes[number]} {row[number]:.3f}") for number in map(int, numbers)]
        for row, numbers in zip(shares, order, strict=True)
    ]


def class_number(text: str, classes: Sequence[str]) -> int:
    """The class that a user gives by name or number.

    Raises:
        UserError: there is none, or several have this name.
    """
    numbers = [number for number, name in enumerate(classes) if name == text]
    if len(numbers) > 1:
        several = " and ".join(map(str, numbers))
        raise UserError(f"--target={text}: several classes have this name; give the number of one: {several}")
    if numbers:
        return numbers[0]
    if text.isascii() and text.isdigit() and int(text) < len(classes):
        return int(text)
    hint = nearest_names(text, classes)
    if len(classes) > MOST_NAMES_LISTED and not hint.startswith("did you mean"):
        hint = f"its {len(classes)} classes range from {classes[0]} to {classes[-1]}"
    raise UserError(f"--target={text}: the network has no such class; {hint} (or a number, 0 to {len(classes) - 1})")


def imagenet_classes() -> tuple[str, ...]:
    """ImageNet's 1,000 names in the order of the classifiers' outputs, as in Keras: `African_elephant` is 386."""
    text = resources.files(__package__ or "").joinpath(IMAGENET_FILE).read_text(encoding="utf-8")
    return tuple(line for line in text.splitlines() if line and not line.startswith("#"))

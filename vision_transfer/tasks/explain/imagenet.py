"""The names of ImageNet's 1,000 classes."""

from importlib import resources

NAMES_FILE = "imagenet_classes.txt"


def imagenet_classes() -> tuple[str, ...]:
    """The names in the order of the classifiers' outputs, as Keras shows them: `African_elephant` is 386."""
    text = resources.files(__package__ or "").joinpath(NAMES_FILE).read_text(encoding="utf-8")
    return tuple(line for line in text.splitlines() if line and not line.startswith("#"))

"""Every figure with hostile names: drawn as they are, without a warning, and never at the cost of a result."""

import io
import warnings

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from vision_transfer.config.schema import AugmentConfig
from vision_transfer.runtime.console import Screen
from vision_transfer.tasks.figures import draw_or_say_why, new_axes, save_png
from vision_transfer.tasks.report.confusion import confusion_figure
from vision_transfer.tasks.report.curves import draw_curves, stage_curves
from vision_transfer.tasks.show_augmentation import draw_grid

# Formulas that are none, one that is, scripts without a font, a byte of a foreign file name, control characters.
NAMES = (
    "US$ or A$",
    r"$\frac{",
    "$x^2$",
    "\\",
    "{%}_^~#&",
    "猫と犬",
    "قطة",
    "🐈",
    "a\udcffb",
    "line\nbreak",
    "tab\tbell\x07",
    "",
    "n" * 400,
)


def confusion(name):
    return confusion_figure([[3, 1], [0, 2]], [name, f"{name} too"])


def curves(name):
    values = {f"{split}_{what}": 0.5 for split in ("train", "validation") for what in ("loss", "accuracy")}
    return draw_curves(stage_curves([values | {"stage": name, "epoch": epoch} for epoch in (1, 2)]), name)


def augmentation(name):
    image = np.zeros((8, 8, 3), np.uint8)
    return draw_grid(name, image, np.zeros((9, 8, 8, 3), np.float32), AugmentConfig())


def heat(name):
    from vision_transfer.tasks.explain.figures import heat_figure

    return heat_figure(np.zeros((16, 16, 3), np.uint8), np.ones((4, 4)), f"{name}\n{name} 0.5", f"Grad-CAM for {name}")


def maps(name):
    from vision_transfer.tasks.explain.figures import activations_figure

    return activations_figure(np.random.default_rng(0).normal(size=(4, 4, 6)).astype(np.float32), name, name)


FIGURES = (confusion, curves, augmentation, heat, maps)


@pytest.mark.parametrize("draw", FIGURES, ids=lambda draw: draw.__name__)
def test_every_figure_takes_every_name(tmp_path, draw):
    for number, name in enumerate(NAMES):
        file = tmp_path / f"{number}.png"
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", "constrained_layout not applied")
            save_png(draw(name), file, 40)
        assert Image.open(file).size[0] > 50


def test_dollars_are_drawn_as_dollars(tmp_path):
    """As a formula, the two texts would look the same."""
    drawn = []
    for text in ("$x$", "x"):
        figure, axes = new_axes(2, 1)
        axes.set_title(text)
        axes.set_xticks([0.5], [text])
        drawn.append(np.asarray(Image.open(save_png(figure, tmp_path / f"{len(drawn)}.png", 60))))
    assert drawn[0].shape == drawn[1].shape and (drawn[0] != drawn[1]).any()


def test_a_figure_never_costs_a_result(tmp_path):
    screen = Screen(Console(file=io.StringIO(), width=300))

    def fails():
        raise ValueError("[no] such thing")

    draw_or_say_why(tmp_path / "figure.png", fails, screen)
    assert "figure.png was not drawn (ValueError: [no] such thing); the results are not affected" in (
        screen.console.file.getvalue()
    )

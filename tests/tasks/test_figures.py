"""Every figure with hostile names: drawn as they are, without a warning, and never at the cost of a result."""

import ast
import io
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

import vision_transfer
from vision_transfer.config import checked, default_config, stage, with_stages
from vision_transfer.config.schema import AugmentConfig
from vision_transfer.data.formats.image_files import display
from vision_transfer.models.layers import Conv
from vision_transfer.runtime.console import Screen
from vision_transfer.tasks.ablation.figures import blocks_figure, cost_figure, depth_figure
from vision_transfer.tasks.ablation.masks import MaskFacts
from vision_transfer.tasks.benchmark.task import draw_depths
from vision_transfer.tasks.check.contact_sheet import draw_sheet
from vision_transfer.tasks.check.findings import Finding
from vision_transfer.tasks.explain.figures import (
    activations_figure,
    filter_bank_figure,
    filters_figure,
    heat_figure,
    operations_figure,
)
from vision_transfer.tasks.explain.teaching import Kernel
from vision_transfer.tasks.figures import draw_or_say_why, new_axes, save_png
from vision_transfer.tasks.probe.recommend import Recommendation
from vision_transfer.tasks.probe.scores import LayerScores
from vision_transfer.tasks.probe.task import transfer_figure
from vision_transfer.tasks.report.confusion import confusion_figure
from vision_transfer.tasks.report.curves import learning_curves_figure, stage_curves
from vision_transfer.tasks.search.candidates import Base, Candidate, Tuning
from vision_transfer.tasks.search.choose import Scored
from vision_transfer.tasks.search.page import Outcome, draw_front
from vision_transfer.tasks.show_augmentation import grid_figure
from vision_transfer.tasks.study.figures import curves_figure
from vision_transfer.tasks.study.plan import SIZE, PlannedRun
from vision_transfer.tasks.study.runs import FinishedRun
from vision_transfer.tasks.study.tables import Group

PACKAGE = Path(vision_transfer.__file__).parent
# Formulas, and what is none; markup; scripts without a font; control characters; a byte of a foreign file name.
NAMES = (
    r"$\frac{ US$ or A$ $a$b \\ {%}_^~#&",
    "[red] [/] 猫と犬 قطة 🐈",
    "line\nbreak\ttab \x07 \x1b[31mred\x1b[0m a\udcffb",
    "",
    "n" * 400,
)


def confusion(name):
    return confusion_figure([[3, 1], [0, 2]], [name, f"{name} too"])


def curves(name):
    values = {f"{split}_{what}": 0.5 for split in ("train", "validation") for what in ("loss", "accuracy")}
    return learning_curves_figure(stage_curves([values | {"stage": name, "epoch": epoch} for epoch in (1, 2)]), name)


def augmentation(name):
    image = np.zeros((8, 8, 3), np.uint8)
    return grid_figure(name, image, np.zeros((9, 8, 8, 3), np.float32), AugmentConfig())


def heat(name):
    return heat_figure(np.zeros((16, 16, 3), np.uint8), np.ones((4, 4)), f"{name}\n{name} 0.5", f"Grad-CAM for {name}")


def maps(name):
    return activations_figure(np.random.default_rng(0).normal(size=(4, 4, 6)).astype(np.float32), name, name)


def filters(name):
    return filters_figure(np.zeros((2, 8, 8, 3), np.float32), (0, 1), name, name)


def filter_bank(name):
    return filter_bank_figure(np.zeros((8, 8, 3), np.uint8), name, [Kernel(name, np.eye(3))], np.ones((1, 8, 8)))


def operations(name):
    return operations_figure(np.eye(4), Kernel(name, np.eye(3)), {name: np.eye(4), f"{name} too": np.eye(4)}, name)


def transfer(name):
    scores = [LayerScores(layer, 8, np.array([True, False]), 0.5, -0.5) for layer in (name, f"{name} too")]
    rows = [Conv(one.layer, 4) for one in scores]
    advice = Recommendation(f"below:{name}", "small", "similar", name, (name,), (name,))
    return transfer_figure(scores, advice, rows, 0.5, name)


def points(name):
    """An ablation with this name of everything that a user names: one block and a cut, with two training sizes."""
    config, found = default_config(), []
    config.model.backbone = "mnist_convnet"
    result = {"test": {"accuracy": 0.5}, "stages": [{"seconds": 1.0}], "parameters": {"trainable": 7}}
    for size in (10, 100):
        for spec in (f"only:{name}", name):
            mask = MaskFacts(spec, {}, (name,), None if "only" in spec else 1, name, 7, trains_norms=False)
            labels = {"mask": spec, SIZE: size, "method": f"by {name}", "schedule": f"{name} {size}"}
            run = PlannedRun(name, checked(with_stages(config, head=stage())), labels)
            found.append((mask, Group(labels, [FinishedRun(run, Path(name), result)] * 2)))
    return found


def study(name):
    return curves_figure([group for _, group in points(name)], SIZE, "method", name)


def depth(name):
    return depth_figure(points(name), lambda group: group.test, name, name)


def cost(name):
    return cost_figure(points(name), name)


def blocks(name):
    return blocks_figure(points(name), name)


def benchmark(name, file):
    record = {
        **{"work": "step", "freeze": name, "source": "images", "device": name, "batch": 8},
        **{"seconds": {"median": 1.0, "first_quartile": 0.9, "third_quartile": 1.1}, "table": {"flops": 1e9}},
        **{"device_memory_bytes": 1e9, "peak_memory_bytes": 1e9},
    }
    draw_depths([record, record | {"freeze": f"{name} too"}], file)


def sheet(name, file):
    """As the check does, with names of files for display."""
    finding = Finding("leak", f"{name} {name}", (display(name), f"{display(name)} too"), (0, 1))
    assert draw_sheet([finding], lambda _: np.zeros((9, 9, 3), np.uint8), file)


def search(name, file):
    """The front of a search, with a backbone of the user's own."""
    candidates = [Candidate(Base(name, 128)), Candidate(Base(name, 128), tuning=Tuning("none", 1e-4, 3))]
    outcomes = (np.ones(8, bool), np.tile([True, False], 4))
    scored = [Scored(*pair, 0.5, 1e12, 1.0, (8,)) for pair in zip(candidates, outcomes, strict=True)]
    draw_front(Outcome(scored, [], scored[1], None, None, 60.0, 0, None), file)


FIGURES = (
    *(confusion, curves, augmentation, heat, maps, filters, filter_bank, operations),
    *(transfer, study, depth, cost, blocks),
)
FILES = (benchmark, sheet, search)


def test_every_figure_of_the_package_is_here():
    """A function that makes a figure or a page of images must be called by name above."""
    makers, missing = {"new_figure", "new_axes", "_grid_figure"}, set()
    called = set(re.findall(r"\w+(?=\()", Path(__file__).read_text(encoding="utf-8")))
    for file in PACKAGE.rglob("*.py"):
        for function in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(function, ast.FunctionDef) and function.name not in makers:
                names = {ast.unparse(node.func) for node in ast.walk(function) if isinstance(node, ast.Call)}
                missing |= {function.name} if names & (makers | {"Image.new"}) else set()
    assert missing - called == set()


@pytest.mark.parametrize("draw", [*FIGURES, *FILES], ids=lambda draw: draw.__name__)
def test_every_figure_takes_every_name(tmp_path, draw):
    for number, name in enumerate(NAMES):
        file = tmp_path / f"{number}.png"
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", "constrained_layout not applied")
            if draw in FILES:
                draw(name, file)
            else:
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

"""`--mode=export` of a finished run: the folder, the card, and the errors."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from vision_transfer.config import checked, default_config, stage, with_stages
from vision_transfer.data.load import load_dataset
from vision_transfer.errors import UserError
from vision_transfer.runs.prepare import RunOptions
from vision_transfer.tasks.export import task
from vision_transfer.tasks.export.agreement import Answer, agreement
from vision_transfer.tasks.export.task import export
from vision_transfer.tasks.train.task import train


@pytest.fixture(scope="module")
def caches(tmp_path_factory):
    return tmp_path_factory.mktemp("caches")


@pytest.fixture(scope="module")
def run(tmp_path_factory, caches):
    """A dense network on small digits."""
    from rich.console import Console

    from vision_transfer.runtime.console import Screen

    config = default_config()
    config.name = "digits"
    config.log.report = False
    config.dataset.name = "embedded"
    config.dataset.image_size = 12
    config.dataset.channels = 1
    config.dataset.train_examples = 100
    config.model.backbone = "dense"
    config.model.weights = "random"
    config.model.hidden = (8,)
    config = with_stages(config, head=stage(freeze="none", epochs=5, optimizer={"name": "adam", "lr": 3e-2}))
    folder = tmp_path_factory.mktemp("runs") / "run"
    return train(checked(config), RunOptions(folder, caches), Screen(Console(quiet=True))).path


@pytest.fixture(scope="module")
def folder(run, caches, tmp_path_factory):
    from rich.console import Console

    from vision_transfer.runtime.console import Screen

    out = tmp_path_factory.mktemp("out") / "model"
    export(run, str(out), "stablehlo,onnx", caches, Screen(Console(quiet=True)))
    return out


def test_the_folder_holds_the_requested_files_and_no_partial_ones(folder):
    assert sorted(file.name for file in folder.iterdir()) == ["README.md", "model.onnx", "model.stablehlo"]
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_the_card_gives_data_recipe_metrics_limits_and_licence(folder):
    card = (folder / "README.md").read_text(encoding="utf-8")
    for part in (
        "embedded digits",
        "95 % interval",
        "Wilson",
        "adam, 0.03",
        "## Metrics",
        "## Limits",
        "## Licence",
        "temperature",
    ):
        assert part in card
    assert re.search(r"`model.onnx` \| ONNX Runtime [\d.]+ \| \d\.\de-\d\d", card)


@pytest.mark.parametrize("library", ["jax", "onnxruntime"])
def test_the_lines_on_the_card_run(folder, library, tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    (code,) = [block for block in blocks if block.startswith(f"import {library}")]
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"\[", done.stdout)) >= 4


def test_without_the_data_files_are_compared_on_noise(run, seal, caches, screen, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text())
    config["dataset"] |= {"name": "folder", "root": str(tmp_path / "gone"), "value_range": [0.0, 4095.0]}
    (copy / "config.json").write_text(json.dumps(config))
    seal(copy)
    export(copy, None, "onnx", caches, screen)
    assert "on 200 images of noise" in screen.console.file.getvalue()
    card = (copy / "export" / "README.md").read_text()
    assert "200 images of noise" in card
    assert "grey files of more than 8 bits are mapped from 0.0 to 4095.0 linearly to 0 to 255" in " ".join(card.split())


def test_without_test_images_files_are_compared_on_noise(run, caches, screen, tmp_path, monkeypatch):
    """As for the last run of folds, whose images are all for training."""
    copy = shutil.copytree(run, tmp_path / "copy")

    def without_test(config, **options):
        dataset = load_dataset(config, **options)
        return replace(dataset, test=dataset.test.take(np.zeros(0, np.int32)))

    monkeypatch.setattr(task, "load_dataset", without_test)
    export(copy, None, "onnx", caches, screen)
    assert "has no test split" in screen.console.file.getvalue()
    assert "200 images of noise" in (copy / "export" / "README.md").read_text()


def test_an_existing_folder_is_left_alone(folder, run, caches, screen):
    with pytest.raises(UserError, match="already exists"):
        export(run, str(folder), None, caches, screen)


def test_an_unknown_format_is_named(run, caches, screen, tmp_path):
    with pytest.raises(UserError, match="did you mean onnx"):
        export(run, str(tmp_path / "out"), "onxx", caches, screen)


def test_a_file_that_disagrees_is_an_error(folder):
    images = np.zeros((3, 12, 12, 1), np.float32)
    with pytest.raises(UserError, match="differ from the run's own"):
        agreement(folder / "model.onnx", images, Answer(np.full((3, 10), 0.1), np.zeros((3, 10))))

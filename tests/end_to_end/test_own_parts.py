"""Parts of the user's own: trained, resumed and used without the file that they came from, and never without trust."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

HERE = Path(__file__).parent
SMALL = f"--config={HERE / 'configs' / 'small.py'}:epochs=1"
PARTS = "my_parts.py"
FLAGS = (
    SMALL,
    f"--config.model.backbone={PARTS}:my_backbone",
    f"--config.model.head={PARTS}:my_head",
    f"--config.stages.whole.optimizer.name={PARTS}:my_optimizer",
    f"--config.stages.whole.loss={PARTS}:focal_loss",
    f"--config.augment.preset={PARTS}:my_augmentation",
    f"--config.metrics=('{PARTS}:top_2',)",
    "--config.stages.top.freeze=below:block",
    "--workdir=run",
)


@pytest.fixture
def own(place):
    """The place of a finished run whose file of parts is gone, and the run's folder."""
    place.cwd.mkdir(parents=True)
    shutil.copy(HERE / PARTS, place.cwd / PARTS)
    place.launch(*FLAGS, "--trust").assert_is_done()
    (place.cwd / PARTS).unlink()
    return place, place.cwd / "run"


def test_a_run_is_resumed_and_used_without_the_file(own):
    place, folder = own
    result = json.loads((folder / "result.json").read_text())
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert result["test"]["own"]["top_2"] >= result["test"]["accuracy"]
    assert all(line["validation_top_2"] >= line["validation_accuracy"] for line in metrics)

    for name in ("result.json", "manifest.json"):
        (folder / name).unlink()
    shutil.rmtree(folder / "checkpoints" / "top")
    place.launch(*FLAGS).assert_is_message("run/parts/my_parts-", "--trust")
    place.launch(*FLAGS, "--trust", "--config.log.report=True").assert_is_done()
    assert "top_2" in (folder / "report.html").read_text()
    resumed = json.loads((folder / "result.json").read_text())
    assert (resumed["test"], resumed["digest"]) == (result["test"], result["digest"])

    Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 20), dtype=np.uint8)).save(place.cwd / "a.png")
    run, images = "--workdir=run", "--images=a.png"
    refused = place.launch("--mode=predict", run, images, "--out=a.csv")
    refused.assert_is_message("run/parts/my_parts-", "(function my_backbone)", "--trust")
    used = place.launch_in_turn(
        ["--mode=predict", run, images, "--out=a.csv", "--trust"],
        ["--mode=evaluate", run, "--out=evaluated.json", "--trust"],
        ["--mode=export", run, "--format=onnx", "--out=exported", "--trust"],
        ["--mode=explain", run, images, "--show=grad_cam", "--out=explained", "--trust"],
    )
    used.assert_is_done()
    assert len((place.cwd / "a.csv").read_text().splitlines()) == 2
    assert "top_2" in used.out
    assert json.loads((place.cwd / "evaluated.json").read_text())["own"] == result["test"]["own"]
    assert "≤" in used.out, "ONNX Runtime agrees with the run"
    assert list((place.cwd / "explained").iterdir())


def test_a_table_that_a_config_adds_is_refused_before_training(place):
    place.cwd.mkdir(parents=True)
    (place.cwd / "own.py").write_text(
        "import runpy\n"
        "from vision_transfer.models.backbones.registry import BACKBONES\n"
        f"small = runpy.run_path({str(HERE / 'configs' / 'small.py')!r})\n"
        "BACKBONES['mine'] = BACKBONES['mnist_convnet']\n"
        "def get_config():\n"
        "    config = small['get_config']()\n"
        "    config.model.backbone = 'mine'\n"
        "    return config\n"
    )
    message = place.launch("--config=own.py", "--workdir=run")
    message.assert_is_message("'mine' was added by a config file", "--config.model.backbone=FILE.py:FUNCTION")
    assert not (place.cwd / "run").exists()

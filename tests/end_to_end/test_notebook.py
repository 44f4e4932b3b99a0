"""The notebook: its cells run from the first to the last, in a folder of their own, and its loop learns."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "notebooks" / "python.ipynb"
WEIGHTS = ("vgg16_notop", "efficientnet_lite0_notop", "efficientnet_lite0")
CHECKS = """
assert features.shape == (2, 1280) and list(likeliest) == [442, 985]
assert float(value) < 1.5, value
assert len(table) == 3 and set(accuracy.index) == {"all", "below:block5_conv3", "below:block5_conv1"}
assert (run.metrics.stage == ["head"] * 6 + ["block5"] * 3).all()
"""


@pytest.fixture(scope="module")
def weights():
    """The cache has the weights that the notebook loads: `--mode=fetch` puts them there."""
    folder = Path(os.environ.get("VISION_TRANSFER_CACHE", "")) / "weights"
    missing = [name for name in WEIGHTS if not (folder / f"{name}.safetensors").exists()]
    if missing:
        pytest.skip(f"VISION_TRANSFER_CACHE has no weights {', '.join(missing)}")


@pytest.mark.usefixtures("weights")
def test_cells_run_from_the_first_to_the_last(tmp_path):
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert not any(cell.get("outputs") for cell in cells), "clear the outputs before a commit"
    code = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    done = subprocess.run(
        [sys.executable, "-c", code + CHECKS],
        cwd=tmp_path,
        env=os.environ | {"MPLBACKEND": "agg", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr

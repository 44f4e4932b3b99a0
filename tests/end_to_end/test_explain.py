"""`--mode=explain` on a finished run, as users start it."""

import numpy as np
from PIL import Image

# The small run's network has three convolutions and two pools; the last map is too small for Grad-CAM.
MAPS = ("conv1", "pool1", "conv2", "pool2", "conv3")


def test_a_run_is_explained(small_run, tmp_path):
    place, _, run = small_run
    image_file = tmp_path / "ziffer é.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 16, 3), dtype=np.uint8)).save(image_file)
    out = tmp_path / "figures"
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    show = "--show=activations,grad_cam,smooth_grad"
    finished = place.launch("--mode=explain", f"--workdir={run.path}", f"--images={tmp_path}", f"--out={out}", show)
    finished.assert_is_done()
    maps = {f"activations-ziffer é-{layer}.png" for layer in MAPS}
    heat = {f"{kind}-ziffer é{layer}.png" for kind, layer in (("grad_cam", "-conv2"), ("smooth_grad", ""))}
    assert {path.name for path in out.iterdir()} == maps | heat | {"grad_cam-ziffer é-conv2-picture.png"}
    assert "left out" in finished.out and "broken.png" in finished.out
    assert "8 figures" in finished.out
    with Image.open(out / "grad_cam-ziffer é-conv2-picture.png") as image:
        assert image.size == (16, 24)


def test_a_run_that_is_not_finished(copied_run, place):
    run, _ = copied_run
    (run.path / "result.json").unlink()
    place.launch("--mode=explain", "--workdir=copy").assert_is_message("copy: this run is not finished")

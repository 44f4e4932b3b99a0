"""The probe as users start it: scores, a figure and a recommendation; a second time without computing features."""

import json
from pathlib import Path

PROBE = f"--config={Path(__file__).parents[2] / 'configs' / 'probe.py'}"
BACKBONE = "--config.model.backbone=mnist_convnet"
SMALL = (
    "--config.model.weights=random",
    "--config.dataset.name=embedded",
    "--config.dataset.image_size=28",
    "--config.dataset.train_examples=80",
)


def test_probe_scores_every_layer_and_recommends_a_spec(place):
    finished = place.launch(PROBE, BACKBONE, *SMALL, "--workdir=probe")
    finished.assert_is_done()
    found = json.loads((place.cwd / "probe" / "probe.json").read_text(encoding="utf-8"))
    assert [one["layer"] for one in found["layers"]] == ["conv1", "pool1", "conv2", "pool2", "conv3"]
    assert found["dataset"]["scored"] == 80
    for one in found["layers"]:
        assert one["probe_ci95"][0] <= one["probe"] <= one["probe_ci95"][1]
        assert one["probe"] > 2 * found["chance"]  # random filters do better than chance on digits
    # The averages at the ends of all stages, side by side.
    assert (found["all_stages"]["layer"], found["all_stages"]["features"]) == ("all stages", 32 + 64 + 64)
    assert "all stages" in finished.out
    advice = found["recommendation"]
    assert f"Recommended: --config.stages.<stage>.freeze={advice['freeze']}" in finished.out
    assert advice["best"] in advice["as_good"]
    assert (place.cwd / "probe" / "probe.png").read_bytes().startswith(b"\x89PNG")

    again = place.launch(PROBE, BACKBONE, *SMALL, "--workdir=probe", "--config.probe.large_from=10")
    again.assert_is_done()
    assert "Compiled" not in again.out
    second = json.loads((place.cwd / "probe" / "probe.json").read_text(encoding="utf-8"))
    assert second["layers"] == found["layers"]
    assert second["recommendation"]["size"] == "large"


def test_two_networks_are_probed_into_folders_of_their_own_and_compared(place):
    names = "('mnist_convnet','convnet_150')"
    size = "--config.dataset.image_size=64"
    finished = place.launch(PROBE, *SMALL, size, f"--config.probe.backbones={names}", "--workdir=probe")
    finished.assert_is_done()
    table = (place.cwd / "probe" / "networks.md").read_text(encoding="utf-8")
    for name in ("mnist_convnet", "convnet_150"):
        found = json.loads((place.cwd / "probe" / name / "probe.json").read_text(encoding="utf-8"))
        assert f"| {name} | {found['recommendation']['freeze']} | {found['recommendation']['best']} |" in table
    assert "Best network: --config.model.backbone=" in finished.out

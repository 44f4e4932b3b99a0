"""The scripts of `docs/studies` on a small convnet and the embedded digits."""

import importlib.util
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
import pytest

STUDIES = Path(__file__).parents[1] / "docs" / "studies"
FIELDS = (
    *("dataset.name=embedded", "dataset.image_size=20", "dataset.channels=1", "dataset.train_examples=80"),
    *("model.backbone=mnist_convnet", "model.weights=random", "log.report=False"),
    *("stages.head.epochs=1", "stages.tune.epochs=4", "stages.tune.patience=None", "stages.tune.skip_from=None"),
)


def study(name):
    spec = importlib.util.spec_from_file_location(name, STUDIES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def frozen(tmp_path_factory):
    """Rows and folder of the study of freezing: nothing frozen, a rule, and one under which nothing settles."""
    out, module = tmp_path_factory.mktemp("frozen"), study("freeze_while_training")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VISION_TRANSFER_CACHE", str(out / "cache"))
        module.main([str(out), *FIELDS, "--seeds=0", "--ways=none,gradients"])
        patch.setattr(module, "SETTLED_SHARE", 0.0)
        module.main([str(out / "never"), *FIELDS, "--seeds=0", "--ways=outputs"])
    return [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()], out


def predictions(folder):
    with np.load(folder / "predictions.npz") as arrays:
        return arrays["logits"]


def test_a_rule_under_which_nothing_settles_changes_no_bit(frozen):
    _, out = frozen
    np.testing.assert_array_equal(predictions(out / "never" / "outputs-0"), predictions(out / "none-0"))


def test_a_rule_moves_the_cut_and_trains_on_from_features(frozen):
    rows, out = frozen
    cuts = [epoch["cut"] for epoch in rows[1]["epochs"]]
    assert cuts[0] == "conv1" and cuts[-1] != "conv1" and len(cuts) == 4
    assert np.abs(predictions(out / "gradients-0") - predictions(out / "none-0")).max() > 0


def test_averages_are_those_of_the_runs(frozen, capsys, monkeypatch):
    _, out = frozen
    monkeypatch.setenv("VISION_TRANSFER_CACHE", str(out / "cache"))
    runs = [str(out / "none-0")] * 2
    study("squeeze").main(runs)
    table = capsys.readouterr().out
    accuracy = json.loads((out / "none-0" / "result.json").read_text())["test"]["accuracy"]
    assert f"| as they are | {accuracy:.3f} |" in table
    assert f"| weights of 2 seeds | {accuracy:.3f} | +0.0 (+0.0 to +0.0) | 1 |" in table
    study("squeeze").main([*runs, "--against", *runs])
    assert "+0.0 (+0.0 to +0.0)" in capsys.readouterr().out


def test_l2_sp_pulls_the_backbone_to_its_start_and_the_head_to_zero():
    start = {"conv": {"kernel": jnp.full(3, 2.0)}, "head_logits": {"kernel": jnp.full(3, 2.0)}}
    now = {"conv": {"kernel": jnp.array([2.0, 2.5, 1.5])}, "head_logits": {"kernel": jnp.full(3, 2.0)}}
    optimizer = study("l2_sp").l2_sp()
    nothing = {layer: {"kernel": jnp.zeros(3)} for layer in start}
    updates, _ = optimizer.update(nothing, optimizer.init(start), now)
    # Adam's first step is the sign of the gradient, but for its epsilon.
    np.testing.assert_allclose(updates["conv"]["kernel"], [0, -1, 1], atol=1e-3)
    np.testing.assert_allclose(updates["head_logits"]["kernel"], [-1, -1, -1], atol=1e-3)
    assert isinstance(optimizer, optax.GradientTransformation)

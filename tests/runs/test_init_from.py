"""Starting from an earlier run: what is taken, what is said, and that it holds when the earlier run is gone."""

import json
import shutil
import signal

import jax
import numpy as np
import pytest

from vision_transfer.config import checked, default_config, stage, with_stages
from vision_transfer.errors import UserError
from vision_transfer.models.backbones.registry import backbone_rows
from vision_transfer.models.heads import head_layers
from vision_transfer.models.network import Network, all_parameter_shapes
from vision_transfer.runs.folder import RunFolder
from vision_transfer.runs.init_from import compare, starting_weights_of_run
from vision_transfer.runs.initial_weights import variables_sha256
from vision_transfer.runs.load import load_run
from vision_transfer.runs.prepare import RunOptions, prepare
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.preemption import Stopped, StopSignal
from vision_transfer.runtime.provenance import json_digest
from vision_transfer.tasks.train.task import train

DIGITS = tuple(str(digit) for digit in range(10))
HEAD = ("head_dense1", "head_logits")
CONVOLUTIONS, NORMS = ("conv1", "conv2", "conv3"), ("norm1", "norm2", "norm3")
BACKBONE = ("conv1", "norm1", "conv2", "norm2", "conv3", "norm3")


def config_of(*, lr=1e-2, epochs=1, **values):
    config = default_config()
    config.name = "small"
    config.log.report = False
    config.dataset.name = "embedded"
    config.dataset.image_size = 18
    config.dataset.channels = 1
    config.dataset.train_examples = 100
    config.model.backbone = "mnist_convnet"
    config.model.batch_norm = True
    config.model.weights = "random"
    config.model.preprocessing = "raw"
    config.model.hidden = (8,)
    config.model.dropout = 0.0
    config.update_from_flattened_dict(values)
    return with_stages(config, only=stage(freeze="all", epochs=epochs, optimizer={"name": "adam", "lr": lr}))


def network_of(*, batch_norm=True, output=None, outputs=10, hidden=(8,)):
    backbone = backbone_rows("mnist_convnet", batch_norm=batch_norm, output=output)
    return Network(backbone, head_layers(outputs, flatten=True, hidden=hidden), (18, 18, 1), preprocessing="raw")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory, cache):
    """A finished run in which all layers and statistics have moved."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    config = config_of()
    config.stages.only.freeze = "none"
    train(checked(config), RunOptions(folder, cache), Screen())
    return folder


@pytest.fixture(scope="module")
def resting_run(tmp_path_factory, whole_run, cache):
    """A finished run that started from it and learnt nothing, at the rate 0."""
    folder = tmp_path_factory.mktemp("resting") / "run"
    train(checked(config_of(init_from=str(whole_run), lr=0.0)), RunOptions(folder, cache), Screen())
    return folder


@pytest.fixture
def source(whole_run, tmp_path):
    """A copy of it, to be moved or damaged."""
    return shutil.copytree(whole_run, tmp_path / "source")


def said(screen):
    return screen.console.file.getvalue()


def same(first, second):
    return jax.tree.map(np.array_equal, first, second)


def test_all_is_taken_where_the_networks_are_the_same():
    fit = compare(network_of(), network_of(), whole=True)
    assert fit.loaded == (*BACKBONE, *HEAD)
    assert (fit.initialised, fit.left_out, fit.problems) == ((), (), ())


def test_the_backbone_is_taken_and_the_head_is_new():
    fit = compare(network_of(outputs=3, hidden=()), network_of(), whole=False)
    assert (fit.loaded, fit.initialised, fit.left_out) == (BACKBONE, ("head_logits",), HEAD)
    assert fit.problems == ()


@pytest.mark.parametrize("backbone", ["efficientnet_lite0", "resnet50", "densenet121"])
def test_the_layers_inside_blocks_are_taken_too(backbone):
    here, run = (
        Network(backbone_rows(backbone, global_average=True), head_layers(outputs, flatten=False), (64, 64, 3))
        for outputs in (3, 10)
    )
    fit = compare(here, run, whole=False)
    assert set(fit.loaded) == {layer for layer in all_parameter_shapes(here) if layer != "head_logits"}
    assert (fit.initialised, fit.left_out, fit.problems) == (("head_logits",), ("head_logits",), ())


def test_what_does_not_fit_stands_side_by_side():
    problems = compare(network_of(outputs=3, hidden=()), network_of(), whole=True).problems
    assert problems == (
        ("head_logits/kernel", (64, 3), (8, 10)),
        ("head_logits/bias", (3,), (10,)),
        ("head_dense1/kernel", None, (64, 8)),
        ("head_dense1/bias", None, (8,)),
    )


def test_a_shorter_backbone_leaves_the_last_layers_out():
    fit = compare(network_of(output="pool2"), network_of(), whole=False)
    assert fit.loaded == BACKBONE[:4]
    assert fit.left_out == (*BACKBONE[4:], *HEAD)
    assert fit.problems == ()


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("here_has_them", [True, False])
def test_a_layer_from_between_is_never_passed_over(whole, here_has_them):
    with_norms, without = network_of(), network_of(batch_norm=False)
    here, run = (with_norms, without) if here_has_them else (without, with_norms)
    shape = (32,)
    sides = (shape, None) if here_has_them else (None, shape)
    assert ("norm1/scale", *sides) in compare(here, run, whole=whole).problems


def test_the_run_starts_from_the_parameters_that_were_tested(whole_run, resting_run, cache, screen):
    started, before = (load_run(path, cache, screen) for path in (resting_run, whole_run))
    assert jax.tree.all(same(started.variables, before.variables))
    # The batch norms' statistics are among them, and had moved.
    assert not np.allclose(started.variables["batch_stats"]["norm1"]["mean"], 0)
    weights = started.result["weights"]
    assert weights["source"].startswith("all layers of the run small-")
    assert weights["sha256"] not in (None, before.result["weights"]["sha256"])


def test_what_is_taken_is_said(whole_run, cache, screen):
    starting_weights_of_run(checked(config_of(init_from=str(whole_run))), network_of(), DIGITS, cache, None, screen)
    lines = said(screen).splitlines()
    assert lines[0] == f"Starts from the run {whole_run}"
    assert lines[1].split()[-2:] == ["56,674", "parameters"]
    assert [line.strip().split("  ")[0] for line in lines[1:4]] == ["loaded", "initialised", "left out of the run"]
    assert "conv1 … head_logits (8 layers)" in lines[1]
    assert all("none" in line for line in lines[2:4])


@pytest.mark.parametrize(
    ("classes", "layers", "head_is_taken"),
    [
        (DIGITS, "auto", True),
        (DIGITS[::-1], "auto", False),
        (DIGITS, "backbone", False),
        (DIGITS[::-1], "all", True),
    ],
)
def test_the_head_is_taken_with_the_classes_it_was_trained_for(
    whole_run, cache, screen, classes, layers, head_is_taken
):
    config = config_of(init_from=str(whole_run), init_from_layers=layers)
    weights = starting_weights_of_run(checked(config), network_of(), classes, cache, None, screen)
    assert set(weights.params) == {*BACKBONE, *(HEAD if head_is_taken else ())}
    assert set(weights.batch_stats) == set(NORMS)
    if not head_is_taken:
        assert "initialised          head_dense1, head_logits" in said(screen)
        assert "left out of the run  head_dense1, head_logits" in said(screen)


def test_other_classes_get_a_head_of_their_own(whole_run, cache, screen):
    config = config_of(init_from=str(whole_run))
    weights = starting_weights_of_run(checked(config), network_of(outputs=1), ("cat", "dog"), cache, None, screen)
    assert tuple(weights.params) == BACKBONE


def test_what_does_not_fit_is_an_error_that_says_what_to_do(whole_run, cache, screen):
    config = config_of(init_from=str(whole_run))
    with pytest.raises(UserError) as error:
        starting_weights_of_run(checked(config), network_of(hidden=(9,)), DIGITS, cache, None, screen)
    lines = str(error.value).splitlines()
    assert lines[0].startswith(f"config.init_from: {whole_run}: ")
    assert lines[1].split() == ["this", "network", "the", "run"]
    assert lines[2].split() == ["head_dense1/kernel", "(64,", "9)", "(64,", "8)"]
    assert "--config.init_from_layers=backbone" in lines[-1]


def test_a_backbone_without_parameters_is_nothing_to_take(whole_run, cache, screen):
    dense = Network((), head_layers(10, flatten=True), (18, 18, 1))
    config = config_of(init_from=str(whole_run), init_from_layers="backbone")
    with pytest.raises(UserError, match="nothing to take"):
        starting_weights_of_run(checked(config), dense, DIGITS, cache, None, screen)


def test_the_input_is_the_runs_own(whole_run, cache, screen):
    config = config_of(init_from=str(whole_run))
    config.model.preprocessing = None
    run = prepare(checked(config), RunOptions(None, cache), screen)
    assert run.network.preprocessing == run.config.model.preprocessing == "raw"
    assert "config.model.preprocessing" not in said(screen)


def test_another_input_is_pointed_out(whole_run, cache, screen):
    config = config_of(**{"init_from": str(whole_run), "model.preprocessing": "rescale"})
    assert prepare(checked(config), RunOptions(None, cache), screen).network.preprocessing == "rescale"
    assert "config.model.preprocessing is rescale, but the run was trained with raw" in said(screen)


def test_another_activation_is_pointed_out(whole_run, cache, screen):
    prepare(
        checked(config_of(**{"init_from": str(whole_run), "model.activation": "relu"})), RunOptions(None, cache), screen
    )
    assert "here Dense(name='head_dense1', features=8, activation='relu'), but in the run Dense(" in said(screen)
    assert said(screen).count(", but in the run ") == 1


def test_the_digest_is_of_the_parameters_and_not_of_the_path(whole_run, source, cache, screen):
    starts = (str(whole_run), str(source), None)
    digests = [
        prepare(checked(config_of(init_from=start)), RunOptions(None, cache), screen).identity.digest
        for start in starts
    ]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("collection", [0, 1])
def test_the_digest_of_the_start_is_of_every_number_in_it(collection):
    start = ({"conv1": {"bias": np.zeros(2)}}, {"norm1": {"mean": np.zeros(2)}})
    before = variables_sha256(*start)
    next(iter(next(iter(start[collection].values())).values()))[1] = 1e-30
    assert variables_sha256(*start) != before


@pytest.fixture
def begun(source, tmp_path, cache, screen):
    """A run from `source`, stopped behind its first steps: its config and options."""
    config, folder, stop = config_of(init_from=str(source), epochs=3), tmp_path / "begun", StopSignal()
    stop.received = signal.SIGTERM
    with pytest.raises(Stopped, match="A checkpoint of stage 'only'"):
        train(checked(config), RunOptions(folder, cache, stop=stop), screen)
    return config, RunOptions(folder, cache)


def test_a_begun_run_goes_on_from_the_same_start_when_the_earlier_run_is_gone(begun, source, cache, screen, tmp_path):
    config, options = begun
    undisturbed = train(checked(config), RunOptions(tmp_path / "undisturbed", cache), screen)
    shutil.rmtree(source)
    folder = train(checked(config), options, screen)
    assert f"{source} is gone; this run resumes from the copy in {options.workdir}" in said(screen)
    found, expected = (load_run(run.path, cache, screen) for run in (folder, undisturbed))
    assert jax.tree.all(same(found.variables, expected.variables))
    assert found.result["test"] == expected.result["test"]
    assert found.result["digest"] == expected.result["digest"]


def test_a_source_that_is_gone_is_said(tmp_path, screen, cache):
    with pytest.raises(UserError, match=r"config.init_from: no such folder: .*source.*--workdir"):
        prepare(checked(config_of(init_from=str(tmp_path / "source"))), RunOptions(tmp_path / "no copy", cache), screen)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: (run / "result.json").unlink(), "config.init_from: .*not finished"),
        (lambda run: (run / "config.json").unlink(), "config.init_from: .*not the folder of a run"),
        (lambda run: shutil.rmtree(run / "checkpoints"), "config.init_from: .*not finished"),
    ],
)
def test_a_source_that_is_no_finished_run_is_said(source, cache, screen, damage, message):
    damage(source)
    with pytest.raises(UserError, match=message):
        prepare(checked(config_of(init_from=str(source))), RunOptions(None, cache), screen)


def lose_a_layer(start):
    for manifest in start.glob("*/manifest.json"):
        saved = json.loads(manifest.read_text())
        saved["content"]["metadata"]["params"].append("conv9")
        saved["digest"] = json_digest(saved["content"])
        manifest.write_text(json.dumps(saved))


def flip_a_byte(start):
    file = max((path for path in start.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, r"start: is missing.*result\.json"),
        (lose_a_layer, "start: is damaged, or of another network"),
        (flip_a_byte, "is damaged"),
    ],
)
def test_a_copy_that_is_damaged_is_said(resting_run, seal, tmp_path, cache, screen, damage, message):
    copy = shutil.copytree(resting_run, tmp_path / "copy")
    damage(copy / "start")
    seal(copy)
    with pytest.raises(UserError, match=message):
        load_run(copy, cache, screen)


def test_a_rerun_takes_a_new_copy(resting_run, tmp_path):
    copy = RunFolder(shutil.copytree(resting_run, tmp_path / "copy"))
    assert copy.start.is_dir()
    copy.clear()
    assert not copy.start.exists()

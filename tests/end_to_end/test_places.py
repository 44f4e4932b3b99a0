"""A run's folder and inputs named in every way: through a link, with `..`, relative, from another current folder."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

CONFIGS = Path(__file__).parent / "configs"
OWN = f"--config={CONFIGS / 'own_images.py'}"
RESCALE = "--config.model.preprocessing=rescale"
EPOCH = "--config.stages.whole.epochs=1"


def through_a_link(real, base):
    (base / "link").symlink_to(real.parent, target_is_directory=True)
    return base / "link" / real.name


def with_dots(real, base):
    del base
    return real.parent / "other" / ".." / real.name


def relative(real, base):
    del base
    return Path("..") / real.parent.name / real.name


WAYS = {"link": through_a_link, "dots": with_dots, "relative": relative}


@pytest.fixture(scope="module")
def own_run(small_run, tmp_path_factory, shared_cache, image_folder):
    """A folder, and in it a run that was trained through a link on data that was named by a relative link."""
    base = tmp_path_factory.mktemp("places")
    (base / "real" / "other").mkdir(parents=True)
    (base / "here").mkdir()
    (base / "here" / "linked").symlink_to(base / "real", target_is_directory=True)
    (base / "here" / "data").symlink_to(image_folder, target_is_directory=True)
    place = replace(small_run[0], cwd=base / "here", cache=shared_cache)
    flags = (OWN, EPOCH, "--config.dataset.root=data", "--config.log.report=False")
    place.launch(*flags, "--workdir=linked/run").assert_is_done()
    return base, place, flags


@pytest.fixture(scope="module")
def expected(own_run, image_folder):
    """The table of predictions by the plainest way."""
    base, place, _ = own_run
    out = base / "expected.csv"
    images = f"--images={image_folder / 'test'}"
    place.launch("--mode=predict", f"--workdir={base / 'real' / 'run'}", images, f"--out={out}").assert_is_done()
    return out.read_bytes()


def test_recorded_paths_are_absolute(own_run):
    base, _, _ = own_run
    config = json.loads((base / "real" / "run" / "config.json").read_text())
    assert config["dataset"]["root"] == str(base / "here" / "data")


@pytest.mark.parametrize("way", WAYS)
def test_every_mode_works(own_run, expected, image_folder, tmp_path, way):
    base, place, _ = own_run
    elsewhere = replace(place, cwd=base / "elsewhere")
    elsewhere.cwd.mkdir(exist_ok=True)
    run = f"--workdir={WAYS[way](base / 'real' / 'run', tmp_path)}"
    images = f"--images={image_folder / 'test'}"
    elsewhere.launch_in_turn(
        ["--mode=predict", run, images, f"--out={tmp_path / 'out.csv'}"],
        ["--mode=evaluate", run],
        ["--mode=report", run, f"--out={tmp_path / 'page.html'}"],
        ["--mode=explain", run, "--show=activations", f"--out={tmp_path / 'explain'}"],
        ["--mode=export", run, "--format=stablehlo", f"--out={tmp_path / 'export'}"],
    ).assert_is_done()
    assert (tmp_path / "out.csv").read_bytes() == expected


@pytest.mark.parametrize("way", WAYS)
def test_a_run_is_shown_resumed_and_started_from(own_run, tmp_path, way):
    base, place, flags = own_run
    copy = base / "real" / f"copy {way}"
    shutil.copytree(base / "real" / "run", copy)
    (base / "other").mkdir(exist_ok=True)
    elsewhere = replace(place, cwd=base / "there")
    elsewhere.cwd.mkdir(exist_ok=True)
    own = [flag.replace("root=data", f"root={base / 'here' / 'data'}") for flag in flags]
    workdir = WAYS[way](copy, tmp_path)
    shown = elsewhere.launch(*own, f"--workdir={workdir}")
    shown.assert_is_done()
    assert "This run is finished" in shown.out
    numbers = json.loads((copy / "result.json").read_text())["test"]
    (copy / "result.json").unlink()
    second = tmp_path / "second"
    elsewhere.launch_in_turn(
        [*own, f"--workdir={workdir}"],
        [*own, f"--config.init_from={workdir}", "--config.name=second", f"--workdir={second}"],
    ).assert_is_done()
    assert json.loads((copy / "result.json").read_text())["test"] == numbers
    shutil.rmtree(copy)
    elsewhere.launch("--mode=evaluate", f"--workdir={second}").assert_is_done()


def test_a_run_needs_its_file_of_weights_no_more(own_run, image_folder, tmp_path):
    from vision_transfer.models.pretrained.safetensors_file import write_safetensors

    _, place, flags = own_run
    random, shapes = (
        np.random.default_rng(0),
        {"conv1": (3, 3, 1, 32), "conv2": (3, 3, 32, 64), "conv3": (3, 3, 64, 64)},
    )
    params = {
        name: {"kernel": random.normal(0, 0.1, shape).astype(np.float32), "bias": np.zeros(shape[-1], np.float32)}
        for name, shape in shapes.items()
    }
    here = replace(place, cwd=tmp_path / "weights")
    here.cwd.mkdir()
    write_safetensors(here.cwd / "mine.safetensors", params, {"preprocessing": "rescale"})
    own = [flag.replace("root=data", f"root={image_folder}") for flag in flags]
    here.launch(*own, "--config.model.weights_path=mine.safetensors", RESCALE, "--workdir=run").assert_is_done()
    assert json.loads((here.cwd / "run" / "config.json").read_text())["model"]["weights_path"] == str(
        here.cwd / "mine.safetensors"
    )
    (here.cwd / "mine.safetensors").unlink()
    elsewhere = replace(place, cwd=tmp_path / "elsewhere")
    finished = elsewhere.launch("--mode=evaluate", f"--workdir={here.cwd / 'run'}")
    finished.assert_is_done()
    assert "has changed" not in finished.out


def test_data_that_is_gone_is_said_with_the_run_and_the_way_out(own_run, tmp_path):
    base, place, _ = own_run
    copy = shutil.copytree(base / "real" / "run", tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text())
    config["dataset"]["root"] = str(tmp_path / "gone")
    (copy / "config.json").write_text(json.dumps(config))
    place.launch("--mode=evaluate", f"--workdir={copy}").assert_is_message("data of the run", "--images", "--config")
    place.launch("--mode=explain", "--show=activations", f"--workdir={copy}").assert_is_message("--images")

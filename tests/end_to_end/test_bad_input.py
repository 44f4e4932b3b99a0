"""User errors: one clear message, exit status 2, no traceback."""

import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SMALL = f"--config={Path(__file__).parent / 'configs' / 'small.py'}"
FINETUNE = f"--config={ROOT / 'configs' / 'finetune.py'}"

# flags -> parts of the message: the place, what was found, what is allowed
IN_FLAGS = {
    "no config": ([], ["--config is missing", "--config=finetune"]),
    "unknown field": ([SMALL, "--config.model.dropuot=0.1"], ["--config.model.dropuot", "no such field", "dropout"]),
    "unknown group": ([SMALL, "--config.modle.dropout=0.1"], ["--config.modle.dropout", "model.dropout"]),
    "unknown stage": ([SMALL, "--config.stages.hole.epochs=1"], ["--config.stages.hole.epochs", "whole.epochs"]),
    "unknown field of a stage": (
        [SMALL, "--config.stages.top.optimizer.lrr=1"],
        ["--config.stages.top.optimizer.lrr", "did you mean lr?"],
    ),
    "group": ([SMALL, "--config.dataset=3"], ["--config.dataset", "group of fields", "config.dataset.root"]),
    "text for a number": (
        [SMALL, "--config.batch_size=many"],
        ["--config.batch_size: got 'many'", "a whole number", "examples per training step"],
    ),
    "fraction for a whole number": ([SMALL, "--config.seed=1.5"], ["--config.seed: got '1.5'", "a whole number"]),
    "text for an optional number": ([SMALL, "--config.dataset.image_size=big"], ["image_size: got 'big'"]),
    "text for a rate": ([SMALL, "--config.stages.top.optimizer.lr=slow"], ["optimizer.lr: got 'slow'", "a number"]),
    "number for a truth": ([SMALL, "--config.features.cache=7"], ["features.cache: got '7'", "true or false"]),
    "two mistakes": (
        [SMALL, "--config.seed=x", "--config.stages.top.epochs=y"],
        ["--config.seed: got 'x'", "--config.stages.top.epochs: got 'y'"],
    ),
    "unknown flag": ([SMALL, "--workdirr=x"], ["unknown flag --workdirr", "did you mean workdir?"]),
    "positional argument": ([SMALL, "configs/finetune.py"], ["'configs/finetune.py'", "starts with --"]),
    "unknown mode": ([SMALL, "--mode=trian"], ["--mode: got 'trian'", "run, summary, fetch"]),
    "value for a switch": ([SMALL, "--rerun=maybe"], ["--rerun: got 'maybe'", "true or false"]),
    "flag without value": ([SMALL, "--mode"], ["--mode"]),
    "field that a search does not read": (
        ["--config=search", "--config.model.backbone=vgg16"],
        ["--config.model.backbone: has no effect", "set that: --config.search.backbones=\"('vgg16',)\""],
    ),
    "field that a search reads in other values": (
        ["--config=search", "--config.model.pooling_grid=2"],
        ["--config.model.pooling_grid: has no effect", "config.search.pooling", "layers_in_quarters"],
    ),
    "augmentation without a preset": (
        ["--config=recommended", "--config.augment.flip=horizontal"],
        ["--config.augment.flip: has no effect with config.augment.preset='none'", "preset=keras_layers"],
    ),
    "stages of a search": (
        ["--config=search", "--config.schedule=head"],
        ["--config.schedule: has no effect", "set that: --config.search.freeze=…"],
    ),
    "workdir of a mode that needs none": (
        [SMALL, "--mode=summary", "--workdir=run"],
        ["--workdir: is not for this command", "the folder of a run"],
    ),
    "config of a mode that needs none": (["--mode=cache", SMALL], ["--config: is not for this command"]),
    "last epochs in a search": (
        ["--config=search", "--config.evaluate=last"],
        ["config.evaluate: got 'last'", "'best'"],
    ),
    "weights that nobody publishes, fetched": (
        ["--config=recommended", "--config.model.backbone=resnet50_torch", "--mode=fetch"],
        ["config.model.weights: there are no ImageNet weights for 'resnet50_torch'", "config.model.weights_path"],
    ),
    "seed of a study": (["--config=ablation", "--config.seed=3"], ["--config.seed: has no effect", '"(3,)"']),
    "unknown recipe key": ([f"{SMALL}:epoch=3"], ["epoch=3", "unknown key 'epoch'", "did you mean epochs?"]),
    "ill-typed recipe": ([f"{SMALL}:epochs=few"], ["epochs: got 'few'", "int"]),
    "missing config file": (["--config=configs/nope.py"], ["configs/nope.py", "No such file", "--config=finetune"]),
    "unknown name of a config": (["--config=fintune"], ["--config=fintune", "did you mean finetune?", "ablation"]),
    "folder for a config file": (["--config=."], ["--config=.", "is a folder"]),
}


@pytest.mark.parametrize(("flags", "parts"), IN_FLAGS.values(), ids=IN_FLAGS)
def test_mistake_in_flags(place, flags, parts):
    place.launch(*flags).assert_is_message(*parts)
    assert [path.name for path in place.cwd.iterdir() if path.is_dir()] == []


# content of a config file -> parts of the message
IN_FILES = {
    "syntax": ("def get_config(:\n    pass\n", ["own.py, line 1", "SyntaxError"]),
    "import": ("import no_such_module\n", ["own.py, line 1", "No module named 'no_such_module'"]),
    "no function": ("x = 1\n", ["defines no function get_config"]),
    "another value": ("def get_config():\n    return 3\n", ["returned int", "expected a ConfigDict"]),
    "unknown field": (
        "from vision_transfer.config import default_config\n\n"
        "def get_config():\n    config = default_config()\n    config.bacth_size = 3\n    return config\n",
        ["own.py, line 5", '"bacth_size" does not exist', '"batch_size"'],
    ),
    "wrong type": (
        "from vision_transfer.config import default_config\n\n"
        "def get_config():\n    config = default_config()\n    config.batch_size = 'many'\n    return config\n",
        ["own.py, line 5", "batch_size"],
    ),
}


@pytest.mark.parametrize(("content", "parts"), IN_FILES.values(), ids=IN_FILES)
def test_mistake_in_a_config_file(place, content, parts):
    place.cwd.mkdir()
    (place.cwd / "own.py").write_text(content)
    place.launch("--config=own.py").assert_is_message("--config=own.py", *parts)


# Errors found after the flags are parsed and JAX is imported; several in one command where possible.
IN_VALUES = {
    "numbers": (
        [
            SMALL,
            "--config.stages.top.epochs=-1",
            "--config.stages.whole.optimizer.name=rmsporp",
            "--config.model.dropout=1.0",
        ],
        [
            "config.stages.top.epochs: got -1; allowed is 1 or more",
            "config.stages.whole.optimizer.name: got 'rmsporp'; allowed are rmsprop, adam, sgd",
            "config.model.dropout: got 1.0; allowed is less than 1",
        ],
    ),
    "schedule": (
        [SMALL, "--config.schedule=('whole','head')"],
        ["config.schedule: names stage 'head', not in config.stages (top, whole)"],
    ),
    "layer": (
        [SMALL, "--config.stages.top.freeze=below:conv4", "--mode=summary"],
        ["config.stages.top.freeze", "'below:conv4'", "no layer 'conv4'", "conv3"],
    ),
    "freeze spec": (
        [SMALL, "--config.stages.top.freeze=blow:conv3", "--mode=summary"],
        ["config.stages.top.freeze: cannot read 'blow:conv3'", "below:NAME", "last:N", "regex:PATTERN"],
    ),
    "missing folder": (
        [FINETUNE, "--config.dataset.root=no such folder", "--mode=summary"],
        ["dataset.root", "no folder no such folder", "ROOT/train/CLASS"],
    ),
    "weights file": (
        [FINETUNE, "--config.model.weights_path=none.h5", "--config.dataset.name=embedded"],
        ["none.h5", "No such file", "config.model.weights_path"],
    ),
    "workdir is a file": ([SMALL, "--workdir=stdout.txt"], ["stdout.txt", "set --workdir to another folder"]),
}


@pytest.mark.parametrize(("flags", "parts"), IN_VALUES.values(), ids=IN_VALUES)
def test_mistake_in_values(place, flags, parts):
    place.launch(*flags).assert_is_message(*parts)


def test_debug_shows_the_traceback(place):
    in_flags = place.launch(SMALL, "--config.model.dropuot=0.1", "--debug")
    assert in_flags.status == 2
    assert "Traceback" in in_flags.err
    assert in_flags.err.splitlines()[-1].startswith("launch.py: --config.model.dropuot")
    later = place.launch(SMALL, "--config.batch_size=0", "--debug")
    assert later.status == 2
    assert "Traceback" in later.err
    assert later.err.splitlines()[-1].startswith("launch.py: config.batch_size: got 0")


def test_workdir_of_another_config(copied_run):
    run, again = copied_run
    before = sorted(run.path.rglob("*"))
    again("--config.seed=1").assert_is_message("--workdir=copy", "another config", "config.json")
    assert sorted(run.path.rglob("*")) == before


def test_workdir_in_use(small_run, place):
    from filelock import FileLock

    run = small_run[2]
    with FileLock(run.path / ".lock"):
        place.launch(SMALL, f"--workdir={run.path}").assert_is_message(str(run.path), "another process uses this run")


def test_cache_that_is_a_file(place, tmp_path):
    file = tmp_path / "cache"
    file.touch()
    type(place)(place.cwd, file).launch(SMALL).assert_is_message(str(file), "VISION_TRANSFER_CACHE")


class TestWithoutPermission:
    """A user without permission to read or write; root gives up its privileges."""

    @pytest.fixture
    def prefix(self):
        if shutil.which("setpriv") is None or sys.platform != "linux":
            pytest.skip("needs setpriv, to run without root's privileges")
        return ("setpriv", "--inh-caps=-all", "--bounding-set=-all")

    @pytest.fixture
    def denied(self):
        paths = []

        def deny(path, mode):
            path.chmod(mode)
            paths.append(path)
            return path

        yield deny
        for path in paths:
            path.chmod(0o700)

    def test_config_file(self, place, prefix, denied):
        place.cwd.mkdir()
        (place.cwd / "own.py").write_text("")
        denied(place.cwd / "own.py", 0)
        place.launch("--config=own.py", prefix=prefix).assert_is_message("own.py", "Permission denied")

    def test_cache_and_workdir(self, place, prefix, denied, tmp_path):
        folder = tmp_path / "mine"
        folder.mkdir()
        denied(folder, 0o500)
        place.launch(SMALL, f"--workdir={folder}/run", prefix=prefix).assert_is_message(
            f"{folder}/run", "Permission denied", "--workdir"
        )
        own = type(place)(place.cwd, folder)
        own.launch(SMALL, prefix=prefix).assert_is_message(str(folder), "VISION_TRANSFER_CACHE")

    def test_data_folder(self, place, prefix, denied, image_folder):
        copy = place.cwd / "images"
        shutil.copytree(image_folder, copy)
        denied(copy / "train", 0)
        flags = (FINETUNE, "--config.dataset.root=images", "--mode=summary")
        place.launch(*flags, prefix=prefix).assert_is_message("dataset.root", "images")

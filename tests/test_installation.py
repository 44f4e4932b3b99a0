"""The package as it is installed: its dependencies, its extras, its command, and the configs that come with it."""

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import vision_transfer
from vision_transfer.config.files import config_file, config_names
from vision_transfer.errors import UserError
from vision_transfer.runtime import program
from vision_transfer.runtime.program import install_extra

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
SOURCES = [*(ROOT / "vision_transfer").rglob("*.py"), *(ROOT / "configs").glob("*.py"), ROOT / "launch.py"]
TEXTS = [*SOURCES, *(ROOT / "vision_transfer").rglob("*.jinja"), *ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
# Modules whose distribution has another name.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "absl": "absl_py",
    "google": "protobuf",
    "orbax": "orbax_checkpoint",
    "sklearn": "scikit_learn",
    "tensorflow": "tensorflow_cpu",
}


def distribution(requirement):
    """The name in a requirement such as `jax[cuda12]>=0.10`, in one spelling."""
    return re.match(r"[\w.-]+", requirement)[0].replace("-", "_").lower()


def imported_modules(file):
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.partition(".")[0]


def test_every_import_is_declared():
    declared = {distribution(text) for texts in [PROJECT["dependencies"], *EXTRAS.values()] for text in texts}
    ours = {"vision_transfer", *sys.stdlib_module_names}
    imported = {module for file in SOURCES for module in imported_modules(file)} - ours
    assert {module for module in imported if DISTRIBUTIONS.get(module, module).lower() not in declared} == set()


def test_every_extra_that_a_text_names_exists():
    named = {}
    for file in TEXTS:
        for found in re.findall(r"install_extra\([\"'](\w+)|extras? `?\[(\w+)\]|\.\[([\w,]+)\]'", file.read_text()):
            named |= dict.fromkeys("".join(found).split(","), file)
    assert {"export", "slurm", "heic", "tensorboard", "tpu", "peers"} <= set(named)
    assert {extra: file for extra, file in named.items() if extra not in EXTRAS} == {}


def test_no_text_installs_this_package_from_a_registry():
    """It is on none, so its name there is somebody else's."""
    pattern = re.compile(r"vision[-_]transfer\[|pip install (?:-U )?[\"']?vision[-_]transfer")
    assert [file for file in TEXTS if pattern.search(file.read_text(encoding="utf-8"))] == []


def test_an_extra_is_installed_by_the_names_of_its_packages(monkeypatch):
    declared = ["jax>=0.10", 'pillow-heif>=0.20; extra == "heic"', "keras>=3.8; extra == 'export'"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: declared)
    assert install_extra("heic") == "pip install 'pillow-heif>=0.20'"
    assert install_extra("export") == "pip install 'keras>=3.8'"
    assert install_extra("none") == "pip install '.[none]'"


@pytest.mark.parametrize(
    ("script", "command", "name"),
    [
        ("/env/bin/vision-transfer", "vision-transfer", "vision-transfer"),
        ("/env/vision_transfer/__main__.py", "python -m vision_transfer", "vision_transfer"),
        ("launch.py", "python launch.py", "launch.py"),
        ("/my code/launch.py", "python '/my code/launch.py'", "launch.py"),
        ("/env/bin/ipython", "python -m vision_transfer", "vision_transfer"),
    ],
)
def test_messages_advise_the_command_that_the_user_typed(monkeypatch, script, command, name):
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    assert (program.program(), program.program_name()) == (command, name)


def test_configs_are_found_by_name_and_paths_stay_as_they_are(tmp_path, monkeypatch):
    assert set(config_names()) == {file.stem for file in (ROOT / "configs").glob("*.py")}
    assert all(Path(config_file(name)).is_file() for name in config_names())
    assert [config_file(path) for path in ("configs/x.py", "x.py", "a/b", ".")] == ["configs/x.py", "x.py", "a/b", "."]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").touch()
    with pytest.raises(UserError, match=r"--config=mine: .*your own file is --config=mine\.py"):
        config_file("mine")


def test_the_module_is_the_program(tmp_path):
    command = [sys.executable, "-m", "vision_transfer", "--config", "mnist:model=convent"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("vision_transfer: recipe 'model=convent'")


def test_the_version_is_that_of_the_metadata():
    assert vision_transfer.__version__ in (importlib.metadata.version("vision_transfer"), "unknown")

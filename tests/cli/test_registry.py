"""The registry of tasks and modes, and the help that is made of it and of the schema."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from vision_transfer.cli import registry
from vision_transfer.cli.help import help_text
from vision_transfer.cli.registry import MODES, TASKS, find_entry, folders_of
from vision_transfer.config import FIELDS, STAGE_FIELDS
from vision_transfer.config.schema import Config
from vision_transfer.errors import UserError

TASKS_FOLDER = Path(registry.__file__).parents[1] / "tasks"


def test_the_tasks_are_those_that_a_config_can_choose():
    assert set(TASKS) == set(FIELDS["task"].choices)
    for name in TASKS:
        assert find_entry("run", Config(task=name)) is TASKS[name]


def test_the_help_names_every_task_and_mode():
    text = help_text()
    for name, entry in (TASKS | MODES).items():
        assert f"\n  {name} " in text
        assert entry.meaning.split()[0] in text


def test_every_entry_calls_a_function_of_its_own_that_exists():
    tree = ast.parse(Path(registry.__file__).read_text())
    imported = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    modules = {node.module: node.names[-1].name for node in imported if node.module.startswith("vision_transfer.tasks")}
    for module, name in modules.items():
        file = TASKS_FOLDER.joinpath(*module.split(".")[2:]).with_suffix(".py")
        defined = {node.name for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef)}
        assert name in defined, module


@pytest.mark.parametrize("topic", ["config", "config.model", "config.stages.NAME", "config.stages.NAME.optimizer.lr"])
def test_fields_of_a_topic_are_listed_with_their_meanings(topic):
    text = help_text(topic)
    fields = {f"config.{path}": field for path, field in FIELDS.items()}
    fields |= {f"config.stages.NAME.{path}": field for path, field in STAGE_FIELDS.items()}
    for path, field in fields.items():
        listed = path == topic or path.startswith(f"{topic}.")
        assert (f"--{path}=" in text) == listed
        assert not listed or " ".join(field.meaning.split()) in " ".join(text.split())


def test_a_topic_that_does_not_exist_is_named_with_the_nearest():
    with pytest.raises(UserError, match=r"--help=config\.modl: there are no such fields; did you mean config\.model"):
        help_text("config.modl")


def test_folders_are_separated_by_commas_unless_one_has_them_in_its_name(tmp_path):
    (tmp_path / "a, b").mkdir()
    assert folders_of(f"{tmp_path}/a, b") == [tmp_path / "a, b"]
    assert folders_of(f"{tmp_path}/a , {tmp_path}/b,") == [tmp_path / "a", tmp_path / "b"]
    with pytest.raises(UserError, match="names no folder"):
        folders_of(" , ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config=finetune", "--dry_run"], "--dry_run: is not for this command"),
        (["--config=finetune", "--launcher=processes:2"], "--launcher: is not for this command"),
        (["--mode=report", "--workdir"], "--workdir: is given without a value"),
        (["--mode=report", "--workdir=~no.such.user/run"], "~no.such.user/run"),
        (["--mode=evaluate", "--workdir=run", "--out=."], "--out=.: is a folder"),
        (["--mode=check", "--config=finetune", "--out=file.png"], "file.png is a file; give a folder"),
    ],
)
def test_what_a_command_cannot_read_is_one_message(arguments, message, tmp_path):
    (tmp_path / "file.png").write_bytes(b"")
    ended = subprocess.run(
        [sys.executable, "-m", "vision_transfer", *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 2 and message in ended.stderr and "Traceback" not in ended.stderr

"""Every command of the pages and of the configs' docstrings is run on small data, here or in a test that is named.

What a command needs in data is replaced: RUN by a small run, files by small ones. A command that is not run has a
reason. Python on the pages is run too.
"""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("documents", ROOT / "tests" / "test_documents.py")
documents = importlib.util.module_from_spec(spec)
spec.loader.exec_module(documents)

EMBEDDED = "--config.dataset.name=embedded"
# Commands as they start, and the flags that make them small. Later flags win.
RUN_HERE = {
    "--help": [],
    "--help=config": [],
    "--config=finetune --mode=summary": [EMBEDDED],
    "--config=from_scratch:edition=2,augment=True --mode=show_augmentation": [EMBEDDED, "--out=augmented.png"],
    "--mode=report --workdir=RUN": [],
    "--mode=explain --workdir=RUN --images=cat.jpg": ["--out=out"],
    "--mode=explain --images=chelsea.png --show=filter_banks": ["--images=cat.jpg", "--out=out"],
    "--mode=explain --config=mnist --config.dataset.name=embedded": ["--out=out"],
}
# Patterns of commands that another test runs on small data.
RUN_ELSEWHERE = {
    r"--config=finetune$": "tests/end_to_end/test_resume.py",
    r".*--mode=check\b": "tests/end_to_end/test_own_images.py",
    r".*--mode=fetch\b": "tests/end_to_end/test_tfds.py",
    r"--config=mnist --config\.dataset\.name=tfds": "tests/end_to_end/test_tfds.py",
    r"--mode=predict\b": "tests/end_to_end/test_use.py",
    r"--mode=evaluate\b": "tests/end_to_end/test_use.py",
    r"--mode=export\b": "tests/end_to_end/test_use.py",
    r"--mode=explain\b": "tests/end_to_end/test_explain.py",
    r"--config=ablation\b": "tests/end_to_end/test_ablation.py",
    r"--config=probe\b": "tests/end_to_end/test_probe.py",
    r"--config=mnist_to_fashion\b": "tests/end_to_end/test_study.py",
    r"--config=benchmark\b": "tests/tasks/benchmark/test_task.py",
    r"--config=finetune --trust\b": "tests/end_to_end/test_own_parts.py",
    r"--config=lower_layers\b": "tests/tasks/classic_classifier/test_task.py",
}
# Trainings of full size, of minutes to hours; `tests/configs` compares what they train with the published recipes,
# and the same task runs small in `test_resume.py` and `test_own_images.py`.
TOO_LONG = (
    r"--config=(finetune|feature_extraction|from_scratch|recommended|sign_language|mnist|fashion_mnist|cifar10)"
    r"(:\S+)?( --config\.\S+| --workdir=\S+)+$",
    r"--config=(mnist|cifar10):\S+",
)


def all_commands():
    found = {}
    for file in (*documents.PAGES, *documents.CONFIGS):
        for command in documents.commands(documents.text_of(file)):
            flags = re.sub(r"^(python launch\.py|vision-transfer) ", "", " ".join(command.split()))
            if "…" not in flags.partition(" ")[0]:
                found.setdefault(flags, file.name)
    return found


def test_every_command_is_run_or_has_a_reason():
    unknown = [
        f"{file}: {command}"
        for command, file in all_commands().items()
        if not any(command.startswith(start) for start in RUN_HERE)
        and not any(re.match(pattern, command) for pattern in (*RUN_ELSEWHERE, *TOO_LONG))
    ]
    assert unknown == []
    assert [file for file in RUN_ELSEWHERE.values() if not (ROOT / file).exists()] == []


@pytest.mark.parametrize("start", RUN_HERE)
def test_the_command_runs(place, small_run, scene, start):
    command = next(command for command in all_commands() if command.startswith(start))
    place.cwd.mkdir(exist_ok=True)
    Image.fromarray(scene(0)).save(place.cwd / "cat.jpg")
    flags = [flag.replace("RUN", str(small_run[2].path)) for flag in shlex.split(command)]
    place.launch(*flags, *RUN_HERE[start]).assert_is_done()


# Pages with Python, and what it needs; the README's lines are also in the notebook, whose test needs the weights.
PYTHON = {"README.md": "tests/end_to_end/test_notebook.py", "own_parts.md": None, "runs.md": None}


def test_all_pages_with_python_are_known():
    found = {file.name for file in documents.PAGES if documents.python_blocks(documents.text_of(file))}
    assert found == PYTHON.keys()
    lines = documents.python_blocks((ROOT / "README.md").read_text(encoding="utf-8"))[0].splitlines()
    notebook = (ROOT / "notebooks" / "python.ipynb").read_text(encoding="utf-8")
    assert all(line.partition(', "photos/"')[0].replace('"', r"\"") in notebook for line in lines if line)


@pytest.mark.parametrize("page", [page for page, elsewhere in PYTHON.items() if elsewhere is None])
def test_the_python_runs(tmp_path, monkeypatch, small_run, scene, page):
    monkeypatch.chdir(tmp_path)
    for name in ("a.jpg", "b.png"):
        Image.fromarray(scene(0)).save(name)
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    for block in documents.python_blocks(text):
        names = {}
        exec(re.sub(r'"runs/[^"]*"', repr(str(small_run[2].path)), block), names)
        if "my_backbone" in names:
            assert names["my_backbone"]()[-1].name == "block_relu"

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
# Patterns of commands that another test runs on small data: its file, and what it gives to the command line.
RUN_ELSEWHERE = {
    r"--config=finetune$": ("test_resume.py", "SMALL"),
    r".*--mode=check\b": ("test_own_images.py", "--mode=check"),
    r".*--mode=fetch\b": ("test_tfds.py", "--mode=fetch"),
    r"--config=mnist --config\.dataset\.name=tfds": ("test_tfds.py", "splits"),
    r"--mode=predict\b": ("test_use.py", "--mode=predict"),
    r"--mode=evaluate\b": ("test_use.py", "--mode=evaluate"),
    r"--mode=export\b": ("test_use.py", "--mode=export"),
    r"--mode=explain\b": ("test_explain.py", "--mode=explain"),
    r"--config=ablation\b": ("test_ablation.py", "small_ablation.py"),
    r"--config=search\b": ("test_search.py", "--config=search"),
    r"--config=finetune .*--hosts=": ("test_hosts.py", "--hosts="),
    r"--config=probe\b": ("test_probe.py", "probe.py"),
    r"--config=mnist_to_fashion\b": ("test_study.py", "small_curve.py"),
    r"--config=benchmark\b": ("../tasks/benchmark/test_task.py", "benchmark("),
    r"--config=accelerator\b": ("../tasks/benchmark/test_suite.py", "accelerator:small=True"),
    r"--mode=report --workdir=runs/before,": ("../tasks/benchmark/test_difference.py", "report("),
    r"--config=finetune --trust\b": ("test_own_parts.py", "--trust"),
    r"--config=recommended --trust\b": ("../test_studies.py", "l2_sp"),
    r"--config=lower_layers\b": ("../tasks/classic_classifier/test_task.py", "classify("),
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


@pytest.mark.parametrize(("file", "given"), sorted(set(RUN_ELSEWHERE.values())))
def test_the_other_tests_are_where_they_are_said_to_be(file, given):
    assert given in (Path(__file__).parent / file).read_text(encoding="utf-8")


@pytest.mark.parametrize("start", RUN_HERE)
def test_the_command_runs(place, small_run, scene, start):
    command = next(command for command in all_commands() if command.startswith(start))
    place.cwd.mkdir(exist_ok=True)
    Image.fromarray(scene(0)).save(place.cwd / "cat.jpg")
    flags = [flag.replace("RUN", str(small_run[2].path)) for flag in shlex.split(command)]
    place.launch(*flags, *RUN_HERE[start]).assert_is_done()


# Pages with Python, and the test that runs it where this file cannot: the notebook has the README's lines and needs the
# weights; the other one starts two hosts.
PYTHON = {
    "README.md": "tests/end_to_end/test_notebook.py",
    "own_parts.md": None,
    "runs.md": None,
    "scale.md": "tests/end_to_end/test_hosts.py",
}


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

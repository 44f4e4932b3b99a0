"""Documents against the code: links, paths, commands, fields and modes that they name exist."""

import ast
import importlib.util
import re
import shlex
import textwrap
from pathlib import Path

import pytest

from vision_transfer import freezing
from vision_transfer.cli.flag_errors import config_argument, override_mistakes, without_cleared
from vision_transfer.cli.help import FLAG_NAMES
from vision_transfer.cli.registry import MODES
from vision_transfer.config import checked, default_config, flatten, stage
from vision_transfer.config.files import load_config
from vision_transfer.config.table import markdown

ROOT = Path(__file__).resolve().parents[1]
# Without the changelog, which names things that are gone.
PAGES = sorted({*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("tests/*/*.md")} - {ROOT / "CHANGELOG.md"})
CONFIGS = sorted((ROOT / "configs").glob("*.py"))

LINK = re.compile(r"\]\(([^)\s]+)\)")
PATH = re.compile(r"(?<![\w/.-])(?:\.ci|configs|docs|tests|vision_transfer)/[\w./-]*\w")
MODULE = re.compile(r"(?:python -m |from |`)(vision_transfer(?:\.\w+)+)")
FIELD = re.compile(r"(?:--config|(?<![\w.])config)\.(?!json\b)(\w+(?:\.\w+)*)")
RECIPE = re.compile(r"(?:--config=|(?:configs/)?(?=\w+\.py))(\w+)(?:\.py)?:(\w+=[\w=,]+)")
MODE = re.compile(r"--mode=(\w+)")
FLAG = re.compile(r"(?<![\w-])--(\w+)")
FIELDS, STAGE_FIELDS = flatten(default_config().to_dict()), flatten(stage().to_dict())


def text_of(file):
    """A page, or a config's docstring."""
    text = file.read_text(encoding="utf-8")
    return text if file.suffix == ".md" else ast.get_docstring(ast.parse(text)) or ""


def anchors(file):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def is_field(path):
    """Whether the schema has the field, or the group of fields, at a dotted path."""
    group, _, rest = path.partition(".")
    if group == "extra":  # the user's own
        return True
    if group == "stages":
        _, _, path = rest.partition(".")
    fields = STAGE_FIELDS if group == "stages" else FIELDS
    return not path or any(field == path or field.startswith(f"{path}.") for field in fields)


def commands(text):
    """Command lines, each as one line."""
    return re.findall(r"(?:python launch\.py|vision-transfer) [^\n`#]*", re.sub(r"\\\n\s*", "", text))


def python_blocks(text):
    """Python in fences, and indented where it starts with an import."""
    fenced = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    outside = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    indented = re.findall(r"(?:^    .*\n|^\n(?=    ))+", outside, re.MULTILINE)
    return fenced + [block for block in map(textwrap.dedent, indented) if re.match(r"\n*(import|from) ", block)]


@pytest.fixture(params=[*PAGES, *CONFIGS], ids=lambda file: str(file.relative_to(ROOT)))
def document(request):
    return request.param


def test_links_lead_somewhere(document):
    for target in LINK.findall(text_of(document)):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = document.parent / path if path else document
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def test_paths_and_modules_exist(document):
    text = text_of(document)
    assert [path for path in PATH.findall(text) if not (ROOT / path).exists()] == []
    assert [name for name in MODULE.findall(text) if importlib.util.find_spec(name) is None] == []


def test_fields_exist(document):
    assert [field for field in FIELD.findall(text_of(document)) if not is_field(field)] == []


def test_modes_and_flags_exist(document):
    text = text_of(document)
    assert set(MODE.findall(text)) <= set(MODES)
    flags = {flag for command in commands(text) for flag in FLAG.findall(command)}
    assert flags <= set(FLAG_NAMES)


def test_recipes_load(document):
    for name, argument in RECIPE.findall(text_of(document)):
        checked(load_config(f"{ROOT / 'configs' / name}.py:{argument.rstrip(',')}"))


def test_commands_are_read_without_a_mistake(document):
    """Their configs load, and their fields take the values that they are given; other tests run them on small data."""
    for command in commands(text_of(document)):
        arguments = shlex.split(command.replace("python launch.py", "vision-transfer"))[1:]
        given = config_argument(arguments)
        if given is None or "…" in given:
            continue
        # A run of an earlier command stands for itself.
        config = load_config(re.sub(r",?init_from=[^,]*", "", given))
        kept, _ = without_cleared(arguments)
        assert list(override_mistakes(config, [one for one in kept if "…" not in one])) == [], command
        checked(config)


def test_yaml_starts_commands_that_exist():
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    blocks = re.findall(r"^```yaml\n(.*?)^```", text_of(ROOT / "docs" / "scale.md"), re.MULTILINE | re.DOTALL)
    for one in map(yaml.safe_load, blocks):
        (job,) = one["spec"]["replicatedJobs"]
        (container,) = job["template"]["spec"]["template"]["spec"]["containers"]
        start, program, *arguments = shlex.split(container["args"][0])
        assert (one["kind"], start, program) == ("JobSet", "exec", "vision-transfer")
        assert {"config", "workdir"} < {FLAG.match(flag)[1] for flag in arguments} <= {*FLAG_NAMES}
        checked(load_config(config_argument(arguments)))
    assert blocks


def test_the_freeze_specs_are_those_of_the_code():
    page = (ROOT / "docs" / "freezing.md").read_text(encoding="utf-8")
    assert " ".join(freezing.GRAMMAR.split()) in " ".join(page.split())


def test_each_config_has_a_command_that_runs_it():
    for config in CONFIGS:
        assert f"vision-transfer --config={config.stem}" in text_of(config), config.name


def test_the_commands_that_continuous_integration_runs_are_in_the_readme():
    readme, script = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", ".ci/run"))
    assert "\n    pip install . && vision-transfer --config=finetune\n" in readme
    assert "\n    pip install -e '.[test]' && pytest -n 2 --dist loadfile\n" in readme
    assert "vision-transfer --config=finetune)" in script and "\npytest -n 2 --dist loadfile" in script


@pytest.mark.parametrize(
    ("path", "exists"),
    [("dataset.root", True), ("dataset", True), ("stages.head.optimizer.lr", True), ("dataset.rot", False)],
)
def test_a_misspelt_field_would_be_found(path, exists):
    assert is_field(path) == exists


def test_the_page_of_the_configuration_is_that_of_the_schema():
    """Otherwise: `python -m vision_transfer.config.table > docs/configuration.md`."""
    assert (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8") == markdown()

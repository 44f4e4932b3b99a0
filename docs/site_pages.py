"""Pages of the site that are made from other files: the README, the configs' docstrings, the notebook, the changelog.

`mkdocs.yml` names this file as a hook, so that no text exists twice.
"""

import ast
import json
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import vision_transfer

ROOT = Path(__file__).resolve().parents[1]
# Links from the root of the checkout, or from docs/, as they are on the site.
MOVED = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "configs": "recipes.md",
    "notebooks/python.ipynb": "python.md",
}
PAGE = re.compile(r"(?<!\[)`docs/(\w+)\.md`")
CONFIG = re.compile(r"(?<!\[)`configs/(\w+)\.py`")
LINK = re.compile(r"\]\((?!https?://|#)(?:\.\./)?([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages."""
    pages = {
        "index.md": _text("README.md"),
        "contributing.md": _text("CONTRIBUTING.md"),
        "changelog.md": _text("CHANGELOG.md"),
        "recipes.md": _recipes(),
        "python.md": _notebook(ROOT / "notebooks" / "python.ipynb"),
        "reference.md": _reference(),
    }
    for name, content in pages.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Leads links to files of the checkout to the pages made from them; names of pages and configs become links."""
    return CONFIG.sub(r"[\g<0>](recipes.md#\1)", PAGE.sub(r"[\g<0>](\1.md)", LINK.sub(_moved, markdown)))


def _moved(link: re.Match[str]) -> str:
    target, anchor = link[1].removeprefix("docs/").rstrip("/"), link[2] or ""
    return f"]({MOVED.get(target, target)}{anchor})"


def _text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def _recipes() -> str:
    """Each config's docstring and values: configs are pages to read."""
    parts = [
        "# Recipes",
        "Each is a file of `configs/`: `vision-transfer --config=NAME`. Copy one to change it, and give its path.",
    ]
    for file in sorted((ROOT / "configs").glob("*.py")):
        source = file.read_text(encoding="utf-8")
        docstring = ast.get_docstring(ast.parse(source)) or ""
        code = source.split('"""', 2)[2].strip()
        parts += [
            f"## {file.stem}",
            docstring,
            f'??? quote "configs/{file.name}"\n\n' + _indented(f"```python\n{code}\n```"),
        ]
    return "\n\n".join(parts) + "\n"


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" if line else "" for line in text.splitlines())


def _notebook(file: Path) -> str:
    """The cells of a notebook as Markdown."""
    cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
    texts = ["".join(cell["source"]) for cell in cells]
    return "\n\n".join(
        f"```python\n{text}\n```" if cell["cell_type"] == "code" else text
        for cell, text in zip(cells, texts, strict=True)
    )


def _reference() -> str:
    """The public names, whose docstrings mkdocstrings reads where they are defined."""
    names = sorted(vision_transfer.__all__, key=str.lower)
    parts = ["# Python reference", "`import vision_transfer as vt` gives these names."]
    for name in names:
        found = getattr(vision_transfer, name)
        parts.append(f"::: {found.__module__}.{name}")
    return "\n\n".join(parts) + "\n"

"""Rooms import only what stands above them: data flows one way, and no circle can form."""

import ast
from pathlib import Path

import vision_transfer

PACKAGE = Path(vision_transfer.__file__).parent
# Each room imports only rooms before it, inside functions too; launch.py and configs/ import any.
ORDER = (
    "errors",
    "metrics",
    "config",
    "runtime",
    "data",
    "models",
    "freezing",
    "features",
    "train",
    "runs",
    "predict",
    "tasks",
    "cli",
)
# Entries of the package: the rooms and `__init__.py`.
MOST_ENTRIES = 14


def imported_modules(file):
    """Dotted names of the package's modules, or of things in them, that a file imports anywhere."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("vision_transfer."))
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}: imports are absolute"
            if (node.module or "").split(".")[0] == "vision_transfer":
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_of(name, modules):
    """The longest prefix of a dotted name that is a module."""
    parts = name.split(".")
    return next(prefix for end in range(len(parts), 0, -1) if (prefix := ".".join(parts[:end])) in modules)


def module_name(file):
    return ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


FILES = {module_name(file): file for file in sorted(PACKAGE.rglob("*.py"))}
IMPORTS = {
    module: {module_of(name, FILES) for name in imported_modules(file)} - {module} for module, file in FILES.items()
}


def room(module):
    return module.split(".")[1] if "." in module else ""


def test_the_rooms_are_those_of_the_order():
    entries = {path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"}
    assert {name.removesuffix(".py") for name in entries} == {*ORDER, "__init__"}
    assert len(entries) <= MOST_ENTRIES


def test_each_room_imports_only_rooms_before_it():
    backward = [
        f"{module} imports {imported}"
        for module, modules in IMPORTS.items()
        for imported in sorted(modules)
        if room(module) and room(imported) and ORDER.index(room(imported)) > ORDER.index(room(module))
    ]
    assert backward == []


def test_no_module_imports_itself_by_way_of_others():
    done, path = set(), []

    def visit(module):
        assert module not in path, f"a circle: {' → '.join([*path[path.index(module) :], module])}"
        if module not in done:
            path.append(module)
            for imported in sorted(IMPORTS[module]):
                visit(imported)
            done.add(path.pop())

    for module in FILES:
        visit(module)


def test_only_cli_imports_tasks():
    """Tasks share what is in the rooms before them; one task imports another only inside `tasks`."""
    importing = {module for module, modules in IMPORTS.items() if any(room(name) == "tasks" for name in modules)}
    assert {room(module) for module in importing} <= {"tasks", "cli"}

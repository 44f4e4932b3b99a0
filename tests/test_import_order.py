"""Rooms import only what stands before them: data flows one way, and no circle can form."""

import importlib.util
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "docs" / "draw_rooms.py"
spec = importlib.util.spec_from_file_location("draw_rooms", SCRIPT)
draw_rooms = importlib.util.module_from_spec(spec)
spec.loader.exec_module(draw_rooms)

ORDER, room_of = list(draw_rooms.ROOMS), draw_rooms.room_of
IMPORTS = draw_rooms.module_imports()
# The rooms and `__init__.py`.
MOST_ENTRIES = 14
# Files that Python and type checkers look for in a package.
OF_THE_PACKAGE = {"__main__.py", "py.typed"}


def test_the_rooms_are_those_of_the_order():
    entries = {path.name for path in draw_rooms.PACKAGE.iterdir() if path.name != "__pycache__"} - OF_THE_PACKAGE
    assert {name.removesuffix(".py") for name in entries} == {*ORDER, "__init__"}
    assert len(entries) <= MOST_ENTRIES


def test_each_room_imports_only_rooms_before_it():
    backward = [
        f"{module} imports {imported}"
        for module, modules in IMPORTS.items()
        for imported in sorted(modules)
        if room_of(module) and room_of(imported) and ORDER.index(room_of(imported)) > ORDER.index(room_of(module))
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

    for module in IMPORTS:
        visit(module)


def test_only_the_command_line_and_the_package_s_own_names_import_tasks():
    importing = {module for module, modules in IMPORTS.items() if any(room_of(name) == "tasks" for name in modules)}
    assert {room_of(module) for module in importing} <= {"tasks", "cli", ""}


def test_imports_are_absolute():
    assert not [file for file in draw_rooms.PACKAGE.rglob("*.py") if "\nfrom ." in file.read_text(encoding="utf-8")]


def test_the_figure_is_drawn_from_the_imports():
    """Otherwise: `python docs/draw_rooms.py`."""
    assert draw_rooms.FIGURE.read_text(encoding="utf-8") == draw_rooms.svg()

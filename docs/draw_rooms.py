"""Draws `docs/figures/rooms.svg`, the rooms of the package and their imports, from the imports themselves.

    python docs/draw_rooms.py

`tests/test_import_order.py` holds the order of `ROOMS`, and that the figure is the one that this script draws.
"""

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "vision_transfer"
PROGRAM = "vision_transfer.__main__"
FIGURE = ROOT / "docs" / "figures" / "rooms.svg"

# Each room imports only rooms before it; launch.py and configs/ import any.
ROOMS = {
    "errors": "UserError, and suggestions for a wrong name",
    "metrics": "accuracy, calibration, significance: numbers from arrays",
    "config": "the schema, its check, and what config files are made of",
    "runtime": "JAX set-up, devices, console, files and locks, signals, provenance",
    "data": "find, read, split, decode, batch and augment images",
    "models": "layer tables and the module that walks them, kernels, weights",
    "freezing": "freeze spec → mask → trainable and frozen parameters → cut",
    "feature_cache": "the cache of frozen prefixes",
    "training": "step, loop, optimizers, losses, checkpoints",
    "runs": "config and data → a run; its folder, identity and result",
    "predict": "a finished run as a Predictor",
    "tasks": "everything with a name on the command line",
    "cli": "flags, help, and the registry of tasks and modes",
}

WIDTH, ROW, LEFT, BOX, GAP = 900, 46, 16, 560, 18
LANES = 24
SHADE, LINE, TEXT, DIM = "#e8eef6", "#4a6fa5", "#1a1a1a", "#555555"


def imported_names(file: Path) -> Iterator[str]:
    """Dotted names of the package's modules, or of things in them, that a file imports anywhere."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("vision_transfer."))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "vision_transfer":
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_imports() -> dict[str, set[str]]:
    """For each module of the package, the modules of the package that it imports."""
    files = {
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
        for file in sorted(PACKAGE.rglob("*.py"))
    }

    def module_of(name: str) -> str:
        parts = name.split(".")
        return next(prefix for end in range(len(parts), 0, -1) if (prefix := ".".join(parts[:end])) in files)

    return {module: {module_of(name) for name in imported_names(file)} - {module} for module, file in files.items()}


def room_of(module: str) -> str:
    """The room of a module: its first part below the package; empty for the package itself and the program."""
    return module.split(".")[1] if "." in module and module != PROGRAM else ""


def svg() -> str:
    """The figure: a row for each room, and an arc for each pair of rooms, as thick as there are imports."""
    arrows: Counter[tuple[str, str]] = Counter()
    for module, imported in module_imports().items():
        for name in imported:
            if room_of(module) and room_of(name) and room_of(module) != room_of(name):
                arrows[room_of(module), room_of(name)] += 1
    order = list(ROOMS)
    height = ROW * len(order) + 40
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
    ]
    for (importer, imported), count in sorted(arrows.items(), key=lambda item: (item[1], item[0])):
        top, bottom = _middle(order.index(imported)), _middle(order.index(importer))
        reach = LEFT + BOX + LANES * (order.index(importer) - order.index(imported))
        thickness = min(6.0, 0.8 + count / 12)
        parts.append(
            f'<path d="M {LEFT + BOX} {bottom} C {reach} {bottom}, {reach} {top}, {LEFT + BOX} {top}" fill="none" '
            f'stroke="{LINE}" stroke-opacity="0.45" stroke-width="{thickness:.1f}">'
            f"<title>{importer} imports {imported}: {count}</title></path>"
        )
    for place, (room, meaning) in enumerate(ROOMS.items()):
        top = 20 + ROW * place
        parts += [
            f'<rect x="{LEFT}" y="{top}" width="{BOX}" height="{ROW - GAP + 8}" rx="5" fill="{SHADE}"/>',
            f'<text x="{LEFT + 12}" y="{top + 24}" font-size="15" font-weight="bold" fill="{TEXT}">{room}</text>',
            f'<text x="{LEFT + 120}" y="{top + 24}" font-size="13" fill="{DIM}">{escape(meaning)}</text>',
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _middle(place: int) -> float:
    return 20 + ROW * place + (ROW - GAP + 8) / 2


if __name__ == "__main__":
    FIGURE.write_text(svg(), encoding="utf-8")

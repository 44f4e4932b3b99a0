"""Figures that several tasks draw: their set-up, the style of their lines, and their files.

Names of classes, files and runs appear in figures as they are: no `$` starts a formula, and letters of other scripts
are drawn with the fonts of the system.
"""

import functools
import textwrap
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.files import replaced_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's palette, which is safe for colour-blind readers; markers and dashes differ too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", "-.", ":")
POINTS_PER_INCH = 72
# Size of the font of titles, in points; mean width of a letter of matplotlib's DejaVu Sans as a share of it, with some
# room to spare.
MEDIUM, LETTER_WIDTH = 10, 0.62
# Matplotlib's own font, then fonts with the letters that it lacks, of which a system has some or none.
FONTS = (
    "DejaVu Sans",
    "Noto Sans CJK JP",
    "Noto Sans CJK SC",
    "Noto Sans CJK TC",
    "Noto Sans CJK KR",
    "Source Han Sans",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "Droid Sans Fallback",
    "Hiragino Sans",
    "PingFang SC",
    "Yu Gothic",
    "Microsoft YaHei",
    "Malgun Gothic",
    "Arial Unicode MS",
    "Noto Sans",
    "Noto Sans Devanagari",
    "Noto Sans Bengali",
    "Noto Sans Thai",
    "Noto Sans Hebrew",
    "Noto Sans Arabic",
    "Noto Sans Symbols",
    "Noto Emoji",
)


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of this size in inches, without pyplot and its global state; its texts are no formulas."""
    from matplotlib import rcParams
    from matplotlib.figure import Figure

    # Read when a text is created; no caller can forget it here.
    rcParams["text.parse_math"] = False
    rcParams["font.sans-serif"] = list(_installed_fonts())
    return Figure(figsize=(width, height), layout="constrained")


def new_axes(width: float, height: float, rows: int = 1, columns: int = 1, **layout: Any) -> tuple["Figure", Any]:
    """A figure of this size in inches, and its axes as matplotlib's `subplots` returns them, with a light grid."""
    figure = new_figure(width, height)
    axes = figure.subplots(rows, columns, **layout)
    for one in figure.axes:
        one.grid(alpha=0.3)
        one.spines[["top", "right"]].set_visible(False)
    return figure, axes


def line_style(number: int) -> dict[str, Any]:
    """Colour, marker and dashes of the line of this number."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": DASHES[number % len(DASHES)],
        "markersize": 6,
        "linewidth": 2,
    }


def save_png(figure: "Figure", path: Path, pixels_per_inch: int = 150) -> Path:
    """Writes a figure as a PNG file; returns the file."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        if not (content := text.get_text()).isascii():
            text.set_text(drawable(content))
    with replaced_file(path) as temporary, warnings.catch_warnings():
        # A letter that no font has is drawn as a box, which says as much.
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from")
        warnings.filterwarnings("ignore", "Matplotlib currently does not support .* natively")
        figure.savefig(temporary, format="png", dpi=pixels_per_inch)
    return path


def drawable(text: str) -> str:
    """Text that matplotlib takes: bytes of a foreign file name become escapes; for labels of ticks, set again later."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def wrapped(text: str, inches: float) -> str:
    """The text in lines of medium size that fit this width; existing line breaks are kept.

    Matplotlib's own `wrap=True` measures a text with two `$` as a formula.
    """
    letters = max(1, int(inches * POINTS_PER_INCH / (MEDIUM * LETTER_WIDTH)))
    return "\n".join(part for line in text.splitlines() for part in textwrap.wrap(line, letters))


def draw_or_say_why(path: Path, draw: Callable[[], object], screen: Screen) -> None:
    """Draws a figure of results; a failure is shown and costs nothing but the figure."""
    try:
        draw()
    except Exception as error:  # an error of any kind
        screen.say(
            f"{path} was not drawn ({type(error).__name__}: {error}); the results are not affected.",
            style="yellow",
        )


@functools.cache
def _installed_fonts() -> tuple[str, ...]:
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    return tuple(name for name in FONTS if name in installed)

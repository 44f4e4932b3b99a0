"""The contact sheet: the pictures of findings side by side, so that one can look."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vision_transfer.data.images.decode import UndecodableError
from vision_transfer.errors import UserError
from vision_transfer.runtime.files import replaced_file
from vision_transfer.tasks.check.findings import KINDS, Finding

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

# Kinds that one can see; of each, so many findings are shown, the worst first.
SHOWN = ("leak", "label_conflict", "suspect_label", "outlier", "duplicate", "near_duplicate", "mode", "size")
MOST_SHOWN = 24
# In pixels.
SIDE, GAP, TEXT, LINE, MARGIN = 180, 10, 12, 16, 24
WIDTH = 1200
_LINES = 3
_BACKGROUND, _INK, _MUTED = (255, 255, 255), (20, 20, 20), (90, 90, 90)

# Number of an example -> its pixels, `(height, width, 3) uint8`; raises UndecodableError or UserError.
PixelsOf = Callable[[int], np.ndarray]


def draw_sheet(findings: Sequence[Finding], pixels: PixelsOf, path: Path) -> bool:
    """Draws the worst findings of each kind that has pictures; False (and no file) where there is none.

    Args:
        findings: the worst first.
        pixels: of an example.
        path: the PNG to write.
    """
    from PIL import Image, ImageDraw

    sections = [(kind, [f for f in findings if f.kind == kind and f.places]) for kind in SHOWN]
    sections = [(kind, found) for kind, found in sections if found]
    if not sections:
        return False
    height = 2 * MARGIN + sum(_section_height(found) for _, found in sections)
    sheet = Image.new("RGB", (WIDTH, height), _BACKGROUND)
    draw, top = ImageDraw.Draw(sheet), MARGIN
    for kind, found in sections:
        top = _draw_section(sheet, draw, kind, found, pixels, top)
    with replaced_file(path) as temporary:
        sheet.save(temporary, format="PNG")
    return True


def _draw_section(
    sheet: "Image.Image", draw: "ImageDraw.ImageDraw", kind: str, found: list[Finding], pixels: PixelsOf, top: int
) -> int:
    shown = found[:MOST_SHOWN]
    few = f", the first {len(shown)}" if len(shown) < len(found) else ""
    title = f"{KINDS[kind].title} ({kind}): {len(found)}{few}"
    draw.text((MARGIN, top), title, fill=_INK, font=_font(TEXT + 4))
    top += 2 * LINE
    columns, width = _columns(found), _tile_width(found)
    for number, finding in enumerate(shown):
        left = MARGIN + number % columns * (width + GAP)
        _draw_tile(sheet, draw, finding, pixels, (left, top + number // columns * _tile_height()), width)
    return top + -(-len(shown) // columns) * _tile_height() + MARGIN


def _draw_tile(
    sheet: "Image.Image",
    draw: "ImageDraw.ImageDraw",
    finding: Finding,
    pixels: PixelsOf,
    corner: tuple[int, int],
    width: int,
) -> None:
    """A finding's pictures side by side, and under each its name and below what is wrong."""
    from PIL import Image

    left, top = corner
    for number, (place, file) in enumerate(zip(finding.places, finding.files, strict=True)):
        x = left + number * (SIDE + GAP)
        try:
            picture = Image.fromarray(pixels(place))
            picture.thumbnail((SIDE, SIDE))
            sheet.paste(picture, (x, top + (SIDE - picture.height) // 2))
        except (UndecodableError, UserError):
            draw.text((x, top), "cannot be read any more", fill=_MUTED, font=_font(TEXT))
        draw.text((x, top + SIDE + 4), _shortened(draw, file, SIDE), fill=_INK, font=_font(TEXT))
    words, lines = finding.detail.split(), [""]
    for word in words:
        longer = f"{lines[-1]} {word}".strip()
        if draw.textlength(longer, font=_font(TEXT)) > width and lines[-1]:
            lines.append(word)
        else:
            lines[-1] = longer
    for number, line in enumerate(lines[: _LINES - 1]):
        draw.text((left, top + SIDE + 4 + (number + 1) * LINE), line, fill=_MUTED, font=_font(TEXT))


def _shortened(draw: "ImageDraw.ImageDraw", text: str, width: int) -> str:
    """The text, or an ellipsis and as much of its end as fits."""
    kept = text
    while kept and draw.textlength(kept if kept == text else f"…{kept}", font=_font(TEXT)) > width:
        kept = kept[1:]
    return kept if kept == text else f"…{kept}"


def _font(size: int) -> "ImageFont.FreeTypeFont":
    """Matplotlib's own sans serif, which has the letters of most languages."""
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


def _tile_width(found: list[Finding]) -> int:
    most = max(len(finding.places) for finding in found)
    return most * (SIDE + GAP) - GAP


def _columns(found: list[Finding]) -> int:
    return max(1, (WIDTH - 2 * MARGIN + GAP) // (_tile_width(found) + GAP))


def _tile_height() -> int:
    return SIDE + 4 + _LINES * LINE + GAP


def _section_height(found: list[Finding]) -> int:
    return 2 * LINE + -(-min(len(found), MOST_SHOWN) // _columns(found)) * _tile_height() + MARGIN

"""The contact sheet: a PNG of the images of the worst findings."""

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

# Kinds that are visible in images, and the number of findings shown of each, the worst first.
SHOWN = (
    *("leak", "label_conflict", "blank", "suspect_label", "outlier", "duplicate", "dark", "bright", "near_duplicate"),
    *("mode", "size"),
)
MOST_SHOWN = 24
# In pixels.
SIDE, GAP, TEXT, LINE, MARGIN = 180, 10, 12, 16, 24
WIDTH = 1200
_LINES = 3
TILE_HEIGHT = SIDE + 4 + _LINES * LINE + GAP
_BACKGROUND, _INK, _MUTED = (255, 255, 255), (20, 20, 20), (90, 90, 90)

# Place of an example → its pixels, `(height, width, 3) uint8`; raises UndecodableError or UserError.
PixelsOf = Callable[[int], np.ndarray]


def draw_sheet(findings: Sequence[Finding], pixels: PixelsOf, path: Path) -> bool:
    """Draws the worst findings, which come first, of each kind with images; False, and no file, if there is none.

    A sheet of an earlier check is replaced or removed.
    """
    from PIL import Image, ImageDraw

    by_kind = [[one for one in findings if one.kind == kind and one.places] for kind in SHOWN]
    sections = [(found, *_grid(found)) for found in by_kind if found]
    if not sections:
        path.unlink(missing_ok=True)
        return False
    height = 2 * MARGIN + sum(2 * LINE + rows * TILE_HEIGHT + MARGIN for _, rows, _, _ in sections)
    sheet, top = Image.new("RGB", (WIDTH, height), _BACKGROUND), MARGIN
    for found, rows, columns, width in sections:
        kind, shown = found[0].kind, found[:MOST_SHOWN]
        few = f", the first {len(shown)}" if len(shown) < len(found) else ""
        title = f"{KINDS[kind].title} ({kind}): {len(found)}{few}"
        ImageDraw.Draw(sheet).text((MARGIN, top), title, fill=_INK, font=_font(TEXT + 4))
        top += 2 * LINE
        for number, finding in enumerate(shown):
            row, column = divmod(number, columns)
            left = MARGIN + column * (width + GAP)
            _draw_tile(sheet, finding, pixels, left, top + row * TILE_HEIGHT, width)
        top += rows * TILE_HEIGHT + MARGIN
    with replaced_file(path) as temporary:
        sheet.save(temporary, format="PNG")
    return True


def _grid(found: list[Finding]) -> tuple[int, int, int]:
    """Rows and columns of the tiles of a section, and the width of a tile."""
    width = max(len(finding.places) for finding in found) * (SIDE + GAP) - GAP
    columns = max(1, (WIDTH - 2 * MARGIN + GAP) // (width + GAP))
    return -(-min(len(found), MOST_SHOWN) // columns), columns, width


def _draw_tile(sheet: "Image.Image", finding: Finding, pixels: PixelsOf, left: int, top: int, width: int) -> None:
    """Draws the images of a finding side by side, the file name under each, and the detail below."""
    from PIL import Image, ImageDraw

    draw = ImageDraw.Draw(sheet)
    for number, (place, file) in enumerate(zip(finding.places, finding.files, strict=True)):
        x = left + number * (SIDE + GAP)
        try:
            image = Image.fromarray(pixels(place))
            image.thumbnail((SIDE, SIDE))
            sheet.paste(image, (x, top + (SIDE - image.height) // 2))
        except (UndecodableError, UserError):
            draw.text((x, top), "can no longer be read", fill=_MUTED, font=_font(TEXT))
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
    """The text, or an ellipsis followed by as much of its end as fits."""
    kept = text
    while kept and draw.textlength(kept if kept == text else f"…{kept}", font=_font(TEXT)) > width:
        kept = kept[1:]
    return kept if kept == text else f"…{kept}"


def _font(size: int) -> "ImageFont.FreeTypeFont":
    """Matplotlib's own sans serif, which covers the letters of most languages."""
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)

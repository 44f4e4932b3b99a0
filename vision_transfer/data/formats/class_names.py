"""Names of classes that mean the same: compared as they look, and refused where they are too alike to be two classes.

The same name can have several encodings (`é` as one character or as `e` with an accent, as macOS stores it) and blanks
at its ends that nobody sees: names are compared in Unicode's NFC without them.
"""

import unicodedata
from collections.abc import Iterable

from vision_transfer.data.formats.image_files import display
from vision_transfer.errors import UserError

# Unicode's combining diacritical marks: accents of Latin, Greek and Cyrillic letters, but not the voicing marks of
# Japanese, which make other letters.
_ACCENTS = range(0x0300, 0x0370)
# Unicode's category of characters without a shape, such as the zero-width space and the byte-order mark.
_INVISIBLE = "Cf"


def class_name(text: str) -> str:
    """The name of a class as it is shown and stored: NFC, without blanks at its ends, in one printable line."""
    return display(unicodedata.normalize("NFC", text).strip() or text)


def check_not_alike(names: Iterable[str], where: str) -> None:
    """Raises UserError if two names differ only in case, the width of blanks, invisible characters or accents.

    Single letters may: they are an alphabet's.
    """
    seen: dict[str, str] = {}
    for name in sorted(names):
        other = seen.setdefault(_core(name), name)
        if other != name:
            raise UserError(
                f"{where}: the classes {quoted(other)} and {quoted(name)} differ only in case, blanks or accents. If "
                "they are one class, give them one name; if they are two, names that are easier to tell apart."
            )


def quoted(name: str) -> str:
    """A name in quotes, with escapes where its letters are not in the usual encoding (NFC)."""
    if name == unicodedata.normalize("NFC", name):
        return f"'{name}'"
    return "'" + "".join(f"\\u{ord(letter):04x}" if ord(letter) in _ACCENTS else letter for letter in name) + "'"


def _core(name: str) -> str:
    """The part of a name that two classes must not share: without case, accents and spaces at its ends."""
    if len(name) == 1:
        return name
    letters = unicodedata.normalize("NFD", name.casefold())
    kept = (letter for letter in letters if ord(letter) not in _ACCENTS and unicodedata.category(letter) != _INVISIBLE)
    return " ".join("".join(kept).split())

"""The declaration of a field of the configuration: its default, its meaning and its bounds."""

import dataclasses
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")
SETTING = "setting"
# JAX's keys are made of 32 bits of a seed.
LARGEST_SEED = 2**32 - 1


@dataclass(frozen=True)
class Setting:
    """Facts of a field besides its type and default: its meaning, one sentence for the reader, and bounds of numbers.

    They lie from `minimum` to `maximum`, and are less than `below`. With `own`, a reference to a part of the user's own
    is allowed (`own_parts.py`). If the field is not empty, the task that its group belongs to reads it instead of the
    fields named in `instead_of`.
    """

    meaning: str
    minimum: float | None = None
    below: float | None = None
    maximum: float | None = None
    own: bool = False
    instead_of: tuple[str, ...] = ()


def setting(
    default: T,
    meaning: str,
    *,
    minimum: float | None = None,
    below: float | None = None,
    maximum: float | None = None,
    own: bool = False,
    instead_of: tuple[str, ...] = (),
) -> T:
    """A field of the configuration; `dataclasses.field`, typed as its default."""
    metadata = {SETTING: Setting(meaning, minimum, below, maximum, own, instead_of)}
    made: Any = dataclasses.field(default=default, metadata=metadata)
    return made


def group(kind: type[T]) -> T:
    """A group of fields, at their defaults."""
    made: Any = dataclasses.field(default_factory=kind)
    return made

"""Metrics of the user's own, from the logits and labels of a split."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from vision_transfer.config.own_parts import call_part
from vision_transfer.config.references import name_of
from vision_transfer.errors import UserError


def own_metrics(
    references: Sequence[str], logits: Float[np.ndarray, "examples outputs"], labels: Int[np.ndarray, "examples"]
) -> dict[str, float | None]:
    """The value of each metric by the name of its function; None where it is not finite, as JSON has no NaN.

    Raises:
        UserError: a function fails, or returns no number.
    """
    found: dict[str, float | None] = {}
    for reference in references:
        value = call_part(reference, logits, labels)
        try:
            number = float(value)
        except (TypeError, ValueError) as error:
            raise UserError(f"{reference}: returned {type(value).__name__}; expected a number") from error
        found[name_of(reference)] = number if math.isfinite(number) else None
    return found

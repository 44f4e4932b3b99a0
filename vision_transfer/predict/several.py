"""Several runs as one: the mean of their calibrated probabilities (Lakshminarayanan et al. 2017, arXiv:1612.01474)."""

import math
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float64

from vision_transfer.errors import UserError
from vision_transfer.predict.predictor import Prediction, Predictor
from vision_transfer.predict.temperature import probabilities
from vision_transfer.runtime.console import Screen

# The smallest mean probability whose logarithm is taken, so that no logit is infinite.
TINIEST = np.finfo(np.float64).tiny


def load_several(
    folders: Sequence[Path], cache_dir: Path, screen: Screen, views: str | None = None
) -> tuple[Predictor, ...]:
    """The predictors of finished runs of the same classes, in the same order; see `Predictor.load`.

    Raises:
        UserError: as `Predictor.load`, or a run has other classes than the first.
    """
    members = tuple(Predictor.load(folder, cache_dir, screen, views) for folder in folders)
    for folder, member in zip(folders, members, strict=True):
        if member.classes != members[0].classes:
            raise UserError(
                f"--workdir: {folder} has the classes {', '.join(member.classes)}, {folders[0]} has "
                f"{', '.join(members[0].classes)}; only runs of the same classes can be averaged"
            )
    return members


def common_batch(members: Sequence[Predictor]) -> int:
    """The number of files per list of `stream_of`: a multiple of each run's batch, so that resuming changes no bit."""
    return math.lcm(*(member.batch_size for member in members))


def stream_of(
    members: Sequence[Predictor], files: Sequence[str | Path], screen: Screen | None = None
) -> Iterator[list[Prediction]]:
    """Predictions of files by the mean over runs, in lists of `common_batch`; by one run, its own `stream`."""
    if len(members) == 1:
        yield from members[0].stream(files, screen)
        return
    streams = [member.stream(files, screen if member is members[0] else None) for member in members]
    each = zip(*(chain.from_iterable(stream) for stream in streams), strict=True)
    while group := list(islice(each, common_batch(members))):
        yield [averaged(predictions, members[0].classes) for predictions in group]


def averaged(predictions: Sequence[Prediction], classes: Sequence[str]) -> Prediction:
    """The mean of several predictions of one file, without a decision; the error of the first that has one."""
    shares = [one.probabilities for one in predictions if one.probabilities is not None]
    if len(shares) < len(predictions):
        return next(one for one in predictions if one.probabilities is None)
    mean = np.mean(shares, axis=0)
    best = int(mean.argmax())
    return Prediction(predictions[0].file, classes[best], float(mean[best]), mean)


def averaged_logits(
    members: Sequence[Predictor], logits: Sequence[Float[np.ndarray, "examples outputs"]]
) -> Float64[np.ndarray, "examples outputs"]:
    """Logits whose probabilities are the mean of the runs' calibrated ones: logarithms, or that of the odds of class 1.

    `logits` has those of each run for the same examples.
    """
    shares = [probabilities(own, member.temperature) for member, own in zip(members, logits, strict=True)]
    log_mean = np.log(np.maximum(np.mean(shares, axis=0), TINIEST))
    return log_mean[:, 1:] - log_mean[:, :1] if logits[0].shape[1] == 1 else log_mean

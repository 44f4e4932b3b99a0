"""The order of the data: the images of each batch, as a pure function of seed and step.

Step k of a stage always has the same images, so an interrupted run can resume without any saved state of the order.
Only raw Philox bits are used (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), whose stream NumPy
guarantees, and no method of `numpy.random.Generator`, whose algorithms may change between versions.
"""

import numpy as np
from jaxtyping import Float32, Int32

from vision_transfer.config import StageConfig

# Separates this stream from any other use of Philox with the same key.
_ORDER_DOMAIN = int.from_bytes(b"order", "big")

Batches = tuple[Int32[np.ndarray, "steps padded_batch"], Float32[np.ndarray, "steps padded_batch"]]


def permutation(seed: int, pass_index: int, examples: int, stream: int = 0) -> Int32[np.ndarray, "examples"]:
    """The order of the examples in pass `pass_index`, different in each stream; `seed` is taken modulo 2**64."""
    philox = np.random.Philox(
        key=np.array([seed % 2**64, pass_index], np.uint64), counter=np.array([0, 0, stream, _ORDER_DOMAIN], np.uint64)
    )
    return np.argsort(philox.random_raw(examples), kind="stable").astype(np.int32)


def batches_per_pass(examples: int, batch_size: int) -> int:
    """Batches in one pass over the data; the last one may be smaller."""
    return -(-examples // batch_size)


def steps_of_epoch(stage: StageConfig, examples: int, batch_size: int) -> int:
    """Steps of an epoch of a stage: one pass over the data, unless its fields set a number or a least number."""
    return stage.steps_per_epoch or max(stage.least_steps, batches_per_pass(examples, batch_size))


def balanced_order(seed: int, pass_index: int, labels: Int32[np.ndarray, "examples"]) -> Int32[np.ndarray, "examples"]:
    """A pass that draws each class equally often, as a pure function of seed and pass number.

    A pass has as many draws as there are examples. Each class is an endless stream of its reshuffled examples, from
    which each pass takes the next ones: within a class, all are drawn equally often, up to one draw. If the length is
    not divisible by the number of classes, the remaining draws go to the classes in turn, pass after pass.
    """
    classes = np.unique(labels)
    share, left_over = divmod(len(labels), len(classes))
    drawn = []
    for place, label in enumerate(classes):
        members = np.flatnonzero(labels == label)
        # Draws of this class in all passes before this one, and before the next.
        first, end = (
            share * passes + max(0, -((place - left_over * passes) // len(classes)))
            for passes in (pass_index, pass_index + 1)
        )
        draws = np.arange(first, end)
        for turn in np.unique(draws // len(members)):
            order = permutation(seed, int(turn), len(members), stream=int(label) + 1)
            drawn.append(members[order[draws[draws // len(members) == turn] % len(members)]])
    return np.concatenate(drawn)[permutation(seed, pass_index, len(labels))].astype(np.int32)


def dealt(order: Int32[np.ndarray, "examples"], parts: int) -> Int32[np.ndarray, "examples"]:
    """A permutation that takes an example of each part in turn, and those of a part in the order that they had.

    Of P parts, part p has the examples p, p + P, …. Parts have equal numbers of examples, up to one, also in a batch.
    """
    drawn = np.empty_like(order)
    for part in range(parts):
        drawn[part::parts] = order[order % parts == part]
    return drawn


def training_batches(
    seed: int,
    examples: int,
    batch_size: int,
    padded_batch: int,
    start: int,
    count: int,
    balanced_by: Int32[np.ndarray, "examples"] | None = None,
    parts: int = 1,
) -> Batches:
    """Batches of the steps `start` to `start + count - 1` of an endless, reshuffled stream.

    Step k is batch `k % batches_per_pass` of pass `k // batches_per_pass`; the caller decides what an epoch is
    (Keras's `steps_per_epoch` divides the same stream differently). Within a pass every example occurs exactly once,
    unless `balanced_by` has labels whose classes are drawn equally often (`balanced_order`). A batch has `batch_size`
    real examples, the last one of a pass the rest, and is padded to `padded_batch` rows.

    With several `parts`, batches take from each part in turn (`dealt`). If `padded_batch` is a multiple of their
    number, each part has its own columns, the parts one after the other, so that a device can hold one part alone.

    Returns:
        indices `(count, padded_batch) int32` and weights `(count, padded_batch) float32`. Padding rows repeat real
        images of the same pass and part with weight 0; all others have weight 1.

    Raises:
        ValueError: labels and parts, or more parts than examples.
    """
    if parts > 1 and (balanced_by is not None or parts > examples):
        raise ValueError(f"{parts} parts of {examples} examples: each needs one, and classes cannot be balanced")
    per_pass = batches_per_pass(examples, batch_size)
    first_pass, last_pass = start // per_pass, (start + count - 1) // per_pass
    orders = [
        dealt(permutation(seed, pass_index, examples), parts)
        if balanced_by is None
        else balanced_order(seed, pass_index, balanced_by)
        for pass_index in range(first_pass, last_pass + 1)
    ]
    columns = parts if padded_batch % parts == 0 else 1
    tables = [_batched(order, batch_size, padded_batch, columns) for order in orders] or [
        _batched(np.arange(examples, dtype=np.int32), batch_size, padded_batch, columns)
    ]
    window = slice(start - first_pass * per_pass, start - first_pass * per_pass + count)
    indices = np.concatenate([table[0] for table in tables])[window]
    weights = np.concatenate([table[1] for table in tables])[window]
    return indices, weights


def _batched(order: Int32[np.ndarray, "examples"], batch_size: int, padded_batch: int, parts: int) -> Batches:
    """Divides one pass, dealt from `parts`, into rows of `padded_batch`, an equal number of columns for each part."""
    if batch_size < 1 or padded_batch < batch_size:
        raise ValueError(f"padded_batch {padded_batch} must be at least batch_size {batch_size}, and that at least 1")
    steps = batches_per_pass(len(order), batch_size)
    part, column = np.arange(parts)[:, None], np.arange(padded_batch // parts)
    # Draws of each part before each step, and those of all: number n of the pass is of part n % parts.
    ends = np.minimum(np.arange(steps + 1) * batch_size, len(order))[:, None, None]
    drawn = -((part - ends) // parts)
    draws = drawn[:-1] + column % batch_size
    weights = (column < batch_size) & (draws < drawn[1:])
    rows = order[draws % drawn[-1] * parts + part]
    return rows.reshape(steps, padded_batch), weights.reshape(steps, padded_batch).astype(np.float32)

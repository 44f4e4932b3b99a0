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


def training_batches(
    seed: int,
    examples: int,
    batch_size: int,
    padded_batch: int,
    start: int,
    count: int,
    balanced_by: Int32[np.ndarray, "examples"] | None = None,
) -> Batches:
    """Batches of the steps `start` to `start + count - 1` of an endless, reshuffled stream.

    Step k is batch `k % batches_per_pass` of pass `k // batches_per_pass`; the caller decides what an epoch is
    (Keras's `steps_per_epoch` divides the same stream differently). Within a pass every example occurs exactly once,
    unless `balanced_by` has labels whose classes are drawn equally often (`balanced_order`). A batch has `batch_size`
    real examples, the last one of a pass the rest, and is padded to `padded_batch` rows.

    Returns:
        indices `(count, padded_batch) int32` and weights `(count, padded_batch) float32`. Padding rows repeat real
        images of the same pass with weight 0; all others have weight 1.
    """
    per_pass = batches_per_pass(examples, batch_size)
    first_pass, last_pass = start // per_pass, (start + count - 1) // per_pass
    orders = [
        permutation(seed, pass_index, examples)
        if balanced_by is None
        else balanced_order(seed, pass_index, balanced_by)
        for pass_index in range(first_pass, last_pass + 1)
    ]
    tables = [_batched(order, batch_size, padded_batch) for order in orders] or [
        _batched(np.arange(examples, dtype=np.int32), batch_size, padded_batch)
    ]
    window = slice(start - first_pass * per_pass, start - first_pass * per_pass + count)
    indices = np.concatenate([table[0] for table in tables])[window]
    weights = np.concatenate([table[1] for table in tables])[window]
    return indices, weights


def _batched(order: Int32[np.ndarray, "examples"], batch_size: int, padded_batch: int) -> Batches:
    """Divides one pass into rows of `padded_batch`, of which the first `batch_size` are for real images."""
    if batch_size < 1 or padded_batch < batch_size:
        raise ValueError(f"padded_batch {padded_batch} must be at least batch_size {batch_size}, and that at least 1")
    steps = batches_per_pass(len(order), batch_size)
    real = np.resize(order, (steps, batch_size))
    weights = (np.arange(steps * batch_size) < len(order)).reshape(steps, batch_size)
    repeated = np.arange(padded_batch) % batch_size
    padding = np.arange(padded_batch) >= batch_size
    return real[:, repeated], np.where(padding, np.float32(0), weights[:, repeated].astype(np.float32))

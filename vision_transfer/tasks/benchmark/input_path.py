"""How fast images come: decoded from their files on all cores, and handed to the training step; beside its demand.

The step is that of the small convnet, which eats more images per second than any other network here. Decoding happens
once for each data set and size; what every epoch waits for is the feed: rows read from the decoded cache in the order
of the epoch and sent to the devices, while the devices are at work.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from vision_transfer.data.batches import batches_per_pass, training_batches
from vision_transfer.data.dataset import DataRequest, Split
from vision_transfer.data.load import load_dataset
from vision_transfer.runtime import jax_setup
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.devices import local_mesh, padded_batch
from vision_transfer.tasks.benchmark.protocol import serve
from vision_transfer.tasks.benchmark.timing import spread
from vision_transfer.train.device_feed import StreamedFeed, TrainingRows
from vision_transfer.train.step import StepOrder


def build(request: dict[str, Any]) -> tuple[Callable[[int], None], dict[str, Any], Callable[[], dict[str, Any]]]:
    """Measures at once; the facts are images per second: `decoded`, and the median `fed` of `repeats` epochs.

    Args:
        request: `root` (a folder of pictures), `size`, `channels`, `batch`, `repeats`, and the root `cache`.
    """
    jax_setup.configure(Path(request["cache"]))
    data = DataRequest("folder", Path(request["root"]), request["size"], request["channels"])
    with tempfile.TemporaryDirectory() as cache:
        began = time.perf_counter()
        dataset = load_dataset(data, cache_dir=Path(cache), screen=Screen(Console(quiet=True)))
        decoded = sum(map(len, (dataset.train, dataset.validation, dataset.test)))
        rate = decoded / (time.perf_counter() - began)
        fed = spread([_epoch(dataset.train, request["batch"], epoch) for epoch in range(request["repeats"])])
    return lambda times: None, {"decoded": rate, "fed": fed.median}, dict


def _epoch(split: Split, batch: int, epoch: int) -> float:
    """Images per second of an epoch's chunks, all of them on the devices at its end."""
    mesh = local_mesh()
    feed = StreamedFeed(mesh, TrainingRows(split.images, split.labels, split.example_ids))
    steps = batches_per_pass(len(split), batch)
    rows, weights = training_batches(0, len(split), batch, padded_batch(batch, mesh), start=epoch * steps, count=steps)
    order = StepOrder(rows, weights, np.zeros(steps, np.float32))
    began, done = time.perf_counter(), 0
    while done < steps:
        count = min(feed.most_steps(order), steps - done)
        jax.block_until_ready(feed.chunk(order, done, count))
        done += count
    return len(split) / (time.perf_counter() - began)


if __name__ == "__main__":
    serve(build)

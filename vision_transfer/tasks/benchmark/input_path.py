"""The worker of the input path: how fast images are decoded on all cores, and how fast they reach the devices.

Decoding happens once for each data set and size. What every epoch waits for is the feed: rows are read from the
decoded cache in the order of the epoch and sent to the devices while these compute.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from vision_transfer.config.schema import DatasetConfig
from vision_transfer.data.batches import batches_per_pass, training_batches
from vision_transfer.data.dataset import Split
from vision_transfer.data.load import load_dataset
from vision_transfer.runtime import jax_setup
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.devices import local_mesh, padded_batch
from vision_transfer.tasks.benchmark.protocol import Work, serve
from vision_transfer.tasks.benchmark.worker import spread
from vision_transfer.training.device_feed import StreamedFeed, TrainingRows
from vision_transfer.training.step import StepOrder


def build(request: dict[str, Any]) -> Work:
    """Measures at once; the facts are images per second: `decoded`, and `fed` as the median of `repeats` epochs."""
    jax_setup.configure(Path(request["cache"]))
    data = DatasetConfig("folder", request["root"], request["size"], request["channels"], test_fraction=0.1)
    with tempfile.TemporaryDirectory() as cache:
        began = time.perf_counter()
        dataset = load_dataset(data, cache_dir=Path(cache), screen=Screen().silent())
        decoded = sum(map(len, (dataset.train, dataset.validation, dataset.test)))
        rate = decoded / (time.perf_counter() - began)
        fed = spread([_epoch(dataset.train, request["batch"], epoch) for epoch in range(request["repeats"])])
    return lambda times: None, {"decoded": rate, "fed": fed["median"]}, dict


def _epoch(split: Split, batch: int, epoch: int) -> float:
    rows = TrainingRows(split.images, split.labels, split.example_ids)
    return feed_epoch(rows, batch, epoch, local_mesh())["images_per_second"]


def feed_epoch(train: TrainingRows, batch: int, epoch: int, mesh: Mesh) -> dict[str, float]:
    """Images per second until all chunks of an epoch are on the devices, and bytes sent to them for each batch."""
    feed = StreamedFeed(mesh, train)
    steps = batches_per_pass(train.examples, batch)
    rows, weights = training_batches(
        0, train.examples, batch, padded_batch(batch, mesh), start=epoch * steps, count=steps
    )
    order = StepOrder(rows, weights, np.zeros(steps, np.float32))
    began, done, sent = time.perf_counter(), 0, 0
    while done < steps:
        count = min(feed.most_steps(order), steps - done)
        chunk = jax.block_until_ready(feed.chunk(order, done, count))
        sent += sum(leaf.nbytes for leaf in jax.tree.leaves(chunk) if isinstance(leaf, jax.Array))
        done += count
    return {"images_per_second": train.examples / (time.perf_counter() - began), "host_to_device_bytes": sent / steps}


if __name__ == "__main__":
    serve(build)

"""Trains a stage on one and on eight virtual devices of a CPU; run by `test_devices.py` in a process of its own.

    JAX_PLATFORMS=cpu JAX_NUM_CPU_DEVICES=8 python on_eight_devices.py FOLDER

Writes `FOLDER/NAME.npz` for each way to train: the parameters and statistics it ended with, and its losses. Writes
where arrays that are shared or replicated lie to `FOLDER/placements.npz`, and what devices hold of rows that are split
over them to `FOLDER/split.npz`.
"""

import io
import signal
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import Mesh
from rich.console import Console

from vision_transfer import freezing
from vision_transfer.config.schema import CheckpointConfig, Config, ModelConfig, OptimizerConfig, StageConfig
from vision_transfer.data.batches import training_batches
from vision_transfer.models.layers import BatchNorm, Conv, Dense, Dropout, Flatten, MaxPool
from vision_transfer.models.network import Network, init
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.devices import BATCH_AXIS, local_mesh, replicate, share
from vision_transfer.runtime.preemption import Stopped, StopSignal
from vision_transfer.training import device_feed, dispatch
from vision_transfer.training.device_feed import TrainingRows, make_feed
from vision_transfer.training.loop import train_stage
from vision_transfer.training.stage import Stage, Surroundings, TrainingData
from vision_transfer.training.step import StepOrder

# Batches of 6 are padded to 8; the last of an epoch has 5 real examples.
EXAMPLES, BATCH, STEPS, EPOCHS, CLASSES = 11, 6, 2, 2, 3
NETWORK = Network(
    (
        Conv("conv1", 4, activation="linear"),
        BatchNorm("norm1", activation="relu"),
        MaxPool("pool1"),
        Conv("conv2", 5, activation="linear"),
        BatchNorm("norm2", activation="relu"),
    ),
    (Flatten("flatten"), Dropout("drop", 0.3), Dense("logits", CLASSES)),
    (8, 8, 3),
    "rescale",
)


def train(mesh, folder, stop=None):
    """The stage's outcome as arrays by name; or it is stopped in the middle of its second epoch."""

    def record(history):
        if stop is not None:
            stop.received = signal.SIGTERM

    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (EXAMPLES, *NETWORK.input_shape), dtype=np.uint8)
    labels = rng.integers(0, CLASSES, EXAMPLES).astype(np.int32)
    ids = np.arange(100, 100 + EXAMPLES, dtype=np.uint32)
    variables = init(NETWORK, jax.random.key(1))
    mask = freezing.resolve("below:conv2", NETWORK)
    settings = StageConfig(
        freeze="below:conv2", epochs=EPOCHS, steps_per_epoch=STEPS, l1=0.01, l2=0.01, optimizer=OptimizerConfig(lr=1e-3)
    )
    config = Config(
        seed=3,
        batch_size=BATCH,
        eval_batch_size=4,
        checkpoint=CheckpointConfig(every_seconds=1e9),
        model=ModelConfig(batch_norm_statistics="batch"),
    )
    data = TrainingData(TrainingRows(images, labels, ids), images, labels)
    around = Surroundings(folder, Screen(Console(file=io.StringIO())), record, stop or StopSignal())
    stage = Stage("stage", settings, mask, freezing.cut(NETWORK, mask))
    outcome = train_stage(config, NETWORK, stage, variables, lambda: data, mesh, around)
    leaves = jax.tree_util.tree_leaves_with_path(outcome.last._asdict())
    arrays = {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}
    history = outcome.progress.history
    return arrays | {name: [record[name] for record in history] for name in ("train_loss", "validation_loss")}


def placements(mesh):
    """Where each device holds what is shared and what is replicated, and what they hold."""
    host = np.arange(1 << 16, dtype=np.float32)
    own, shifted = jax.device_put(host), np.arange((1 << 16) + 1, dtype=np.float32)[1:]
    found = {}
    for name, leaf in (("device", own), ("host", host), ("unaligned", shifted)):
        found[name] = share(share(leaf, mesh), mesh)
    found["replicated"] = replicate(own, mesh)
    arrays = {name: np.asarray(leaf) for name, leaf in found.items()}
    return arrays | {
        f"{name}_addresses": [shard.data.unsafe_buffer_pointer() for shard in leaf.addressable_shards]
        for name, leaf in found.items()
    }


def split(mesh):
    """Of two variants that are split over the devices: the rows that steps are to take and do take, and bytes held."""
    inputs = np.arange(2 * EXAMPLES, dtype=np.float32)[:, None]
    rows = TrainingRows(inputs, np.zeros(2 * EXAMPLES, np.int32), np.arange(2 * EXAMPLES, dtype=np.uint32), variants=2)
    batches = training_batches(0, EXAMPLES, BATCH, mesh.size, 0, STEPS, parts=mesh.size)
    order = StepOrder(batches[0] + np.int32(EXAMPLES), batches[1], np.zeros(STEPS, np.float32))
    chunk = make_feed(rows, mesh, "split").chunk(order, 0, STEPS)
    columns = zip(chunk.examples.inputs.addressable_shards, chunk.order.rows.addressable_shards, strict=True)
    taken = [np.asarray(held.data)[np.asarray(numbers.data), 0] for held, numbers in columns]
    held = [shard.data.nbytes for shard in chunk.examples.inputs.addressable_shards]
    return {"taken": np.concatenate(taken, axis=1), "asked": order.rows, "held": held, "all": inputs.nbytes}


def main(folder):
    eight = local_mesh()
    one = Mesh(np.array(jax.devices()[:1]), (BATCH_AXIS,))
    assert eight.size == 8
    np.savez(folder / "placements.npz", **placements(eight))
    np.savez(folder / "one.npz", **train(one, folder / "one"))
    np.savez(folder / "eight.npz", **train(eight, folder / "eight"))
    # One step of 8 images at a time.
    device_feed.CHUNK_BYTES = 8 * int(np.prod(NETWORK.input_shape))
    np.savez(folder / "eight_streamed.npz", **train(eight, folder / "eight_streamed"))
    np.savez(folder / "split.npz", **split(eight))
    # Two rows fit a device.
    device_feed._room = lambda mesh, parts: 2 * int(np.prod(NETWORK.input_shape))
    np.savez(folder / "eight_split.npz", **train(eight, folder / "eight_split"))
    dispatch.SECONDS_PER_DISPATCH = 0
    for name, mesh, room in (("resumed", eight, 2), ("resumed_streamed", eight, 0), ("resumed_on_one", one, 0)):
        with pytest.raises(Stopped):
            train(eight, folder / name, StopSignal())
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(device_feed, "_room", lambda mesh, parts, rows=room: rows * int(np.prod(NETWORK.input_shape)))
            np.savez(folder / f"{name}.npz", **train(mesh, folder / name))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

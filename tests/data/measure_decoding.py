"""Measures what decoding on the fly costs: starts, epochs of the feed and memory of `dataset.decode` cache and stream.

    python tests/data/measure_decoding.py cats_vs_dogs_small --size=224

Each line is measured in a process of its own, with a cache in a temporary folder. An epoch is as fast as the training
images reach the devices in batches of 32, with no step computed; the median of `--epochs`.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from vision_transfer.config.schema import DatasetConfig
from vision_transfer.data.load import load_dataset
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.devices import local_mesh
from vision_transfer.runtime.jax_setup import cores
from vision_transfer.tasks.benchmark.input_path import feed_epoch
from vision_transfer.training.device_feed import TrainingRows

BATCH = 32


def measured(folder, size, decode, cache, epochs):
    """Seconds of the start, images per second of an epoch, and peak memory in MB, of this process."""
    config = DatasetConfig("folder", str(folder), size, decode=decode)
    began = time.perf_counter()
    train = load_dataset(config, cache_dir=cache, screen=Screen().silent()).train
    found = {"start": time.perf_counter() - began, "images": len(train)}
    rows = TrainingRows(train.images, train.labels, train.example_ids)
    rates = [feed_epoch(rows, BATCH, epoch, local_mesh())["images_per_second"] for epoch in range(epochs)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return found | {"rate": statistics.median(rates) if rates else None, "peak": peak}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--one", nargs=2, metavar=("DECODE", "CACHE"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        decode, cache = given.one
        print(json.dumps(measured(given.folder, given.size, decode, Path(cache), given.epochs)))
        return
    print(f"{cores()} cores, {given.size} pixels")
    for decode in ("cache", "stream"):
        with tempfile.TemporaryDirectory() as cache:
            for start, epochs in (("first", 0), ("second", 0), ("third", given.epochs)):
                command = [sys.executable, __file__, str(given.folder), f"--size={given.size}", f"--epochs={epochs}"]
                done = subprocess.run([*command, "--one", decode, cache], capture_output=True, text=True, check=True)
                found = json.loads(done.stdout.splitlines()[-1])
                rate = f", {found['images']:,} images fed at {found['rate']:.0f} a second" if epochs else ""
                print(f"{decode}: {start} start {found['start']:.1f} s{rate}, {found['peak']:.0f} MB")
            held = sum(file.stat().st_size for file in Path(cache).rglob("*") if file.is_file())
            print(f"{decode}: {held / 1e6:.1f} MB of cache")


if __name__ == "__main__":
    main()

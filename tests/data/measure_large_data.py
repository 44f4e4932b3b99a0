"""Measures a data set that is larger than memory: starts, epochs against the disk, memory, near-duplicates.

    python tests/data/measure_large_data.py FOLDER --rows=500000 --photos=cats_vs_dogs_small

FOLDER gets JPEG files of 64 x 64 pixels (4 kB of disk each), which repeat 20,000 parts of scikit-learn's two photos,
each with its number in its pixels; a cache with their decoded images (12 kB each); and features of 6,400 random values
(25 kB each). Remove it afterwards. Each line is measured in a process of its own. Files are taken out of the page cache
before an epoch, and random reads of the same rows by 8 and 32 threads tell what the disk can do. Near-duplicates are
looked for among parts of photos (those of scikit-learn without `--photos`, of which too many are alike).
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from vision_transfer.config.schema import DatasetConfig
from vision_transfer.data.images.near_duplicates import SIDE, near_duplicates
from vision_transfer.data.load import load_dataset
from vision_transfer.data.rows import StoredRows, TakenRows
from vision_transfer.feature_cache.store import Store, open_store, write_shard
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.devices import local_mesh
from vision_transfer.tasks.benchmark.input_path import feed_epoch
from vision_transfer.training.device_feed import TrainingRows

PIXELS, CLASSES, FEATURES, SHARD_ROWS, BATCH = 64, 10, 6400, 2500, 256
# Parts of photos that the images repeat, and bits of the number in each.
PARTS, BITS = 20_000, 21
READ_ROWS = 40_000
NEAR, PHOTOS = 200_000, 1000


def crop(photos, random, side):
    """A part of a photo, at any place and scale."""
    photo = photos[random.integers(len(photos))]
    size = int(random.integers(side, min(photo.size)))
    left, top = (int(random.integers(0, length - size + 1)) for length in photo.size)
    return photo.resize((side, side), Image.Resampling.BILINEAR, (left, top, left + size, top + size))


def sample_photos():
    """Scikit-learn's two photos."""
    return [Image.fromarray(image) for image in load_sample_images().images]


def files(folder, rows):
    """Writes the images."""
    photos, random = sample_photos(), np.random.default_rng(0)
    parts = np.stack([np.asarray(crop(photos, random, PIXELS)) for _ in range(min(rows, PARTS))])
    for row in range(rows):
        place = folder / "images" / str(row % CLASSES) / f"{row // 10_000}"
        if row % 10_000 < CLASSES:
            place.mkdir(parents=True, exist_ok=True)
        image = parts[row % len(parts)].copy()
        # The number, three pixels wide each bit, so that it survives compression.
        bits = np.array([row >> bit & 1 for bit in range(BITS)], np.uint8)
        image[:4, : 3 * BITS] = np.repeat(255 * bits, 3)[:, None]
        Image.fromarray(image).save(place / f"{row}.jpg", quality=75)
    return {}


def start(folder, rows):
    """Loads the data set."""
    dataset = load(folder)
    return {"images": len(dataset.train), "rows": rows}


def load(folder):
    """The images as a data set; near-duplicates are looked for by `near` alone."""
    config = DatasetConfig("folder", str(folder / "images"), PIXELS, 3, test_fraction=0.01, validation_fraction=0.01)
    config = DatasetConfig(**{**vars(config), "group_near_duplicates": False})
    return load_dataset(config, cache_dir=folder / "cache", screen=Screen().silent())


def image_epoch(folder, rows):
    """An epoch of images, and the disk."""
    train = load(folder).train
    return epoch(TrainingRows(train.images, train.labels, train.example_ids))


def features(folder, rows):
    """Writes the features."""
    store, random = store_of(folder), np.random.default_rng(0)
    store.path.mkdir(parents=True)
    keys = random.integers(0, 256, (rows, 16), dtype=np.uint8)
    for first in range(0, rows, SHARD_ROWS):
        some = keys[first : first + SHARD_ROWS]
        write_shard(store, random.random((len(some), FEATURES), np.float32), some)
    return {}


def feature_epoch(folder, rows):
    """An epoch of features, and the disk."""
    found = open_features(folder, rows)
    return epoch(TrainingRows(found, np.zeros(rows, np.int32), np.arange(rows, dtype=np.uint32)))


def start_features(folder, rows):
    """Opens the features."""
    return {"rows": open_features(folder, rows).shape[0]}


def store_of(folder):
    """The store of features."""
    return Store(folder / "cache" / "features" / "0123456789abcdef")


def open_features(folder, rows):
    """The features of all images."""
    keys = np.random.default_rng(0).integers(0, 256, (rows, 16), dtype=np.uint8)
    return open_store(store_of(folder), Screen().silent(), remove_damaged=False).rows(keys)


def epoch(rows):
    """MB/s of a cold epoch, and of random reads of some of the same rows."""
    inputs = rows.inputs
    stored = inputs.shards if hasattr(inputs, "shards") else stored_rows(inputs)
    row_bytes = stored[0].row_bytes
    random = np.random.default_rng(1)
    picks = [
        (stored[one], int(random.integers(len(stored[one])))) for one in random.integers(len(stored), size=READ_ROWS)
    ]
    disk = {}
    for threads in (8, 32):
        forget(stored)
        began = time.perf_counter()
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda pick: read_row(*pick), picks, chunksize=100))
        disk[f"disk_{threads}_threads"] = READ_ROWS * row_bytes / 1e6 / (time.perf_counter() - began)
    forget(stored)
    rate = feed_epoch(rows, BATCH, 0, local_mesh())["images_per_second"] * row_bytes / 1e6
    return {"epoch_mb_per_second": rate, **disk, "share": rate / max(disk.values())}


def stored_rows(inputs):
    """The file behind images."""
    return stored_rows(inputs.rows) if isinstance(inputs, TakenRows) else [inputs]


def read_row(rows: StoredRows, row):
    """Reads a row as the system gives it."""
    descriptor = os.open(rows.file, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
    os.pread(descriptor, rows.row_bytes, rows.start + row * rows.row_bytes)
    os.close(descriptor)


def forget(stored):
    """Takes files out of the page cache."""
    os.sync()
    for rows in stored:
        descriptor = os.open(rows.file, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def near(folder, rows, photos):
    """Near-duplicates of thumbnails of parts of photos, a hundredth of which are brightened copies of others."""
    small = sample_photos()
    if photos is not None:
        small = [Image.open(file) for file in sorted(photos.rglob("*.jpg"))[:PHOTOS]]
        for photo in small:
            photo.draft("RGB", (160, 160))
    small, random = [photo.reduce(max(1, min(photo.size) // 80)) for photo in small], np.random.default_rng(0)
    thumbnails = np.stack([np.asarray(crop(small, random, SIDE).convert("L")) for _ in range(NEAR)])
    thumbnails[-NEAR // 100 :] = np.minimum(thumbnails[: NEAR // 100] * 1.3, 255).astype(np.uint8)
    began, cpu = time.perf_counter(), time.process_time()
    pairs = len(near_duplicates(thumbnails).pairs)
    seconds = {"search_seconds": time.perf_counter() - began, "search_cpu_seconds": time.process_time() - cpu}
    return {"pairs": pairs, **seconds}


PHASES = {
    "files": files,
    "first start": start,
    "second start": start,
    "epoch of images": image_epoch,
    "features": features,
    "first start with features": start_features,
    "second start with features": start_features,
    "epoch of features": feature_epoch,
    "near": near,
}


def main():
    """Does all phases, or one; prints a line of JSON for each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--photos", type=Path, help="a folder of JPEG files, for near-duplicates")
    parser.add_argument("--phase", choices=PHASES)
    parser.add_argument("--only", nargs="*", choices=PHASES, default=list(PHASES))
    given = parser.parse_args()
    if given.phase is None:
        photos = [] if given.photos is None else [f"--photos={given.photos}"]
        for phase in given.only:
            flags = [f"--rows={given.rows}", f"--phase={phase}", *photos]
            subprocess.run([sys.executable, __file__, given.folder, *flags], check=True)
        return
    began = time.perf_counter()
    of_photos = {"photos": given.photos} if given.phase == "near" else {}
    found = PHASES[given.phase](given.folder, given.rows, **of_photos)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    took = {"seconds": time.perf_counter() - began, "cpu_seconds": usage.ru_utime + usage.ru_stime}
    print(json.dumps({"phase": given.phase, **took, "peak_gb": usage.ru_maxrss / 1e6, **found}))


if __name__ == "__main__":
    main()

"""Every reader without memory or descriptors: the lack is said as such, no file counts as damaged, none is removed.

Checkpoints are left out of the lack of memory: TensorStore, which Orbax reads them with, ends the process there.
"""

import json
import os
import subprocess
import sys

import pytest

# Makes a large file of each kind, reads it within a limit of memory, then again without; then the same with a limit of
# descriptors; prints what happened.
SCRIPT = r"""
import gzip, json, os, resource, struct, sys, zipfile
from pathlib import Path

import h5py
import numpy as np
from onnx import helper, numpy_helper
from PIL import Image

from vision_transfer.data.formats.idx import read_idx
from vision_transfer.data.formats.npz import npz_source
from vision_transfer.data.images.decode import decode_file
from vision_transfer.feature_cache.store import Store, open_store, write_shard
from vision_transfer.models.pretrained.keras_h5 import write_layers
from vision_transfer.models.pretrained.safetensors_file import write_safetensors
from vision_transfer.models.pretrained.weights_file import read_weights_file
from vision_transfer.predict.image_files import find_images
from vision_transfer.runs.folder import RunFolder
from vision_transfer.runs.predictions import read_predictions
from vision_transfer.runtime.console import Screen
from vision_transfer.training import checkpoints

place = Path(sys.argv[1])
side = 3000
kernel = np.ones((side, side), np.float32)
params = {"dense": {"kernel": kernel}}
shapes = {"dense": {"kernel": kernel.shape}}
screen = Screen().silent()

def image(name):
    Image.new("RGB", (5000, 4000), "red").save(place / name)
    return lambda: decode_file(place / name, 3).sum()

def weights(name, write):
    write(place / name)
    return lambda: read_weights_file(place / name, shapes).params["dense"]["kernel"].sum()

def idx(path):
    path.write_bytes(struct.pack(">IIII", 0x803, 60000, 28, 28) + bytes(60000 * 28 * 28))
    return lambda: read_idx(path, 3).sum()

def idx_gz(path):
    with gzip.open(path, "wb", 1) as stream:
        stream.write(struct.pack(">IIII", 0x803, 60000, 28, 28) + bytes(60000 * 28 * 28))
    return lambda: read_idx(path, 3).sum()

def npz(path):
    arrays = {}
    for split in ("train", "test"):
        arrays |= {f"x_{split}": np.zeros((20000, 32, 32, 3), np.uint8), f"y_{split}": np.arange(20000) % 10}
    np.savez_compressed(path, **arrays)
    return lambda: npz_source(path).classes

def predictions(path):
    np.savez_compressed(path, logits=np.zeros((200000, 50), np.float32), labels=np.zeros(200000, np.int64))
    return lambda: read_predictions(path).test[0].sum()

def features(folder):
    store = Store(folder)
    folder.mkdir()
    digests = np.arange(16 * 400, dtype=np.uint32).view(np.uint8).reshape(400, 64)[:, :16].copy()
    write_shard(store, np.ones((400, 50000), np.float32), digests)
    return lambda: open_store(store, screen, remove_damaged=True).rows(digests)[np.arange(400)].sum()

def onnx_file(path):
    tensor = numpy_helper.from_array(kernel, "dense/kernel")
    graph = helper.make_graph([], "graph", [], [], [tensor])
    path.write_bytes(helper.make_model(graph).SerializeToString())

def result(folder):
    folder.mkdir()
    (folder / "result.json").write_text("{}")
    return RunFolder(folder).result

def description(folder):
    store = Store(folder)
    store.describe({"key": {}})
    return store.description

def checkpoint(folder):
    checkpoints.save(folder, 1, params, {})
    return lambda: checkpoints.load(folder, params).tree["dense"]["kernel"].sum()

def keras_file(path):
    with h5py.File(path, "w") as file:
        write_layers(file, params)

def folder_of_images(folder):
    (folder / "below").mkdir(parents=True)
    Image.new("RGB", (9, 9), "red").save(folder / "below" / "a", "PNG")
    return lambda: find_images(str(folder))

readers = {
    "PNG": image("a.png"),
    "JPEG": image("a.jpg"),
    "TIFF": image("a.tiff"),
    "HDF5": weights("w.h5", keras_file),
    "safetensors": weights("w.safetensors", lambda path: write_safetensors(path, params, {})),
    "ONNX": weights("w.onnx", onnx_file),
    "IDX": idx(place / "images"),
    "compressed IDX": idx_gz(place / "images.gz"),
    "npz": npz(place / "data.npz"),
    "predictions": predictions(place / "predictions.npz"),
    "features": features(place / "features"),
}

def files():
    return sorted(str(path) for path in place.rglob("*") if path.is_file())

few_bytes = {
    "result": result(place / "run"),
    "description of features": description(place / "described"),
    "checkpoint": checkpoint(place / "checkpoint"),
    "folder": folder_of_images(place / "photos"),
}

def size():
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()

# Threads and libraries are loaded, so that only the reading itself lacks memory.
everything = readers | few_bytes
expected = {name: str(read()) for name, read in everything.items()}
before = files()

def within(limit, least, read, name):
    unlimited = resource.getrlimit(limit)
    resource.setrlimit(limit, (least, unlimited[1]))
    try:
        outcome = ["read", str(read())]
    except BaseException as error:
        outcome = [type(error).__name__, str(error)]
    resource.setrlimit(limit, unlimited)
    return [*outcome, str(read()) == expected[name], files() == before]

def next_descriptor():
    descriptor = os.open("/dev/null", os.O_RDONLY)
    os.close(descriptor)
    return descriptor

print(json.dumps({
    "memory": {name: within(resource.RLIMIT_AS, size() + (4 << 20), read, name) for name, read in readers.items()},
    "descriptors": {
        name: within(resource.RLIMIT_NOFILE, next_descriptor(), read, name) for name, read in everything.items()
    },
}))
"""


# Every large array is mapped for itself, so that memory that an earlier reading freed does not hide the limit.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are Linux's")
def test_a_lack_of_memory_or_descriptors_is_no_damage(tmp_path):
    pytest.importorskip("onnx")
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **ALLOCATOR})
    assert done.returncode == 0, done.stderr[-2000:]
    said = {"memory": "not enough memory", "descriptors": "Too many open files"}
    for lack, found in json.loads(done.stdout.splitlines()[-1]).items():
        lacking = {name: (kind, text) for name, (kind, text, *_) in found.items() if kind != "read"}
        for name, (_, _, reads_again, files_stay) in found.items():
            assert reads_again, name
            assert files_stay, name
        for name, (kind, text) in lacking.items():
            # MemoryError and the system's numbers are made a message at the border, `cli/main.py`.
            assert kind in ("MemoryError", "OSError") or said[lack] in text, (lack, name, kind, text)
            assert "remove" not in text and "damaged" not in text, (lack, name, text)
        assert len(lacking) >= len(found) - 1, "the limit is of no effect"

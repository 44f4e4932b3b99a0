"""The listing of the cache, and the entries that `--prune` deletes and keeps."""

import os
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from filelock import FileLock

from vision_transfer.errors import UserError
from vision_transfer.feature_cache.prefix import computed_by
from vision_transfer.feature_cache.store import Hold, Store, write_shard
from vision_transfer.runtime.files import write_json
from vision_transfer.tasks.cache import cache_entries, prune, say_cache, selected

NOW, DAY = 2_000_000_000.0, 86_400
FRESH, OLD, FOREIGN = "0" * 16, "1" * 16, "2" * 16
DECODED = "d" * 32
THUMBNAILS = "e" * 32
PART = f"heads-{'b' * 16}.py"
PROGRAM = f"jit_run_steps-{'a' * 64}"
EVERYTHING = {
    "weights/vgg16_notop",
    "datasets/mnist",
    f"decoded/{DECODED}",
    f"thumbnails/{THUMBNAILS}",
    f"near_duplicates/{THUMBNAILS}",
    f"contrast/{THUMBNAILS}",
    f"held_out/{THUMBNAILS}",
    f"stamps/{THUMBNAILS}-train",
    f"stamps/{FRESH}",
    f"parts/{PART}",
    f"features/{FRESH}",
    f"features/{OLD}",
    f"compiled/{PROGRAM}",
}


def write(path, content=b"0123456789", days=0.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (NOW - days * DAY, NOW - days * DAY))


def write_store(cache, name, days, **computed):
    store = Store(cache / "features" / name)
    store.path.mkdir(parents=True)
    key = {"input_shape": [180, 180, 3], "stored": "bfloat16", "variant": None, **computed}
    store.describe({"layer": "block5_pool", "backbone": "vgg16", "key": key})
    write_shard(store, np.zeros((2, 5, 5, 512), jnp.bfloat16), np.arange(32, dtype=np.uint8).reshape(2, 16))
    write(store.used_file, b"", days)
    write(store.lock_file, b"", days)


@pytest.fixture
def cache(tmp_path):
    """An entry of every kind, a store that other code computed 40 days ago, and files of somebody else."""
    write(tmp_path / "weights" / "vgg16_notop.safetensors", days=50)
    write(tmp_path / "weights" / "my own.safetensors")
    write(tmp_path / "datasets" / "mnist" / "images.gz", days=3)
    write(tmp_path / "datasets" / "my images" / "cat.jpg")
    data = tmp_path / "decoded" / DECODED / "data"
    write(data / "train" / "images.npy", days=20)
    write_json(data / "manifest.json", {"content": {"splits": {"train": {"shape": [7, 20, 30, 3]}}}})
    os.utime(data / "manifest.json", (NOW - 20 * DAY, NOW - 20 * DAY))
    write(tmp_path / "thumbnails" / THUMBNAILS, bytes(16 + 3 * 1025), days=20)
    write(tmp_path / "thumbnails" / "mine")
    for kind in ("near_duplicates", "contrast", "held_out"):
        write(tmp_path / kind / THUMBNAILS)
    for name in (f"{THUMBNAILS}-train", FRESH):
        write(tmp_path / "stamps" / name)
    write(tmp_path / "stamps" / "mine")
    write(tmp_path / "parts" / PART)
    write(tmp_path / "parts" / "mine.py")
    write_store(tmp_path, FRESH, 1, **computed_by(augmented=False))
    write_store(tmp_path, OLD, 40, code="of long ago", jax="0.1")
    write(tmp_path / "features" / "notes.txt")
    write(tmp_path / "features" / OLD / "mine.txt")
    write(tmp_path / "compiled" / f"{PROGRAM}-cache", days=10)
    write(tmp_path / "compiled" / "my-cache")
    return tmp_path


def files(cache):
    return {str(file.relative_to(cache)) for file in cache.rglob("*") if file.is_file() and file.suffix != ".lock"}


def pruned(cache, text):
    return prune(cache, selected(text, cache_entries(cache), NOW))


def test_the_listing_describes_each_entry(cache):
    entries = {entry.path: entry for entry in cache_entries(cache)}
    assert set(entries) == EVERYTHING
    fresh = entries[f"features/{FRESH}"]
    assert fresh.about == "block5_pool of vgg16, 180×180×3, bfloat16: 2 rows"
    assert fresh.bytes >= 2 * 5 * 5 * 512 * 2
    assert fresh.used == NOW - DAY
    assert (fresh.stale, entries[f"features/{OLD}"].stale) == (False, True)
    assert entries[f"decoded/{DECODED}"].about == "7 images of 20×30×3"
    assert entries[f"thumbnails/{THUMBNAILS}"].about == "3 images, for finding near-duplicates"


def test_the_table_has_all_entries_and_the_total(cache, screen):
    say_cache(cache, None, screen)
    said = screen.console.file.getvalue()
    for text in ("weights/vgg16_notop", f"features/{OLD}", "(stale)", "block5_pool of vgg16", "1 programs", "2 in all"):
        assert text in said
    say_cache(cache / "nothing here", None, screen)
    assert "It is empty." in screen.console.file.getvalue()


@pytest.mark.parametrize(
    ("text", "gone"),
    [
        ("weights", {"weights/vgg16_notop"}),
        ("features", {f"features/{FRESH}", f"features/{OLD}"}),
        (f"features/{FRESH}", {f"features/{FRESH}"}),
        (f"features/{FRESH}, compiled", {f"features/{FRESH}", f"compiled/{PROGRAM}"}),
        ("stale", {f"features/{OLD}"}),
        ("older_than:30d", {"weights/vgg16_notop", f"features/{OLD}"}),
        ("features,older_than:30d", {f"features/{OLD}"}),
        ("features,older_than:23h", {f"features/{FRESH}", f"features/{OLD}"}),
        ("weights,stale", set()),
        ("all", EVERYTHING),
    ],
)
def test_exactly_the_selected_entries_are_deleted(cache, text, gone):
    before = {entry.path: entry for entry in cache_entries(cache)}
    everything = files(cache)
    removed, busy = pruned(cache, text)
    assert {entry.path for entry in removed} == gone
    assert busy == []
    assert {entry.path for entry in cache_entries(cache)} == before.keys() - gone
    own = {str(file.relative_to(cache)) for path in gone for file in before[path].files}
    assert everything - files(cache) == own


def test_files_of_others_stay_and_empty_folders_do_not(cache):
    pruned(cache, "all")
    assert files(cache) == {
        "weights/my own.safetensors",
        "datasets/my images/cat.jpg",
        "thumbnails/mine",
        "stamps/mine",
        "parts/mine.py",
        "features/notes.txt",
        f"features/{OLD}/mine.txt",
        "compiled/my-cache",
    }
    assert not (cache / "features" / FRESH).exists()
    assert not (cache / "decoded" / DECODED).exists()


def test_a_link_is_not_followed(cache, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "shard.npy"
    outside.write_bytes(b"precious")
    (cache / "features" / FRESH / "shard.npy").symlink_to(outside)
    pruned(cache, "features")
    assert outside.read_bytes() == b"precious"


@pytest.mark.parametrize("place", ["datasets/mnist", f"decoded/{DECODED}"])
def test_a_linked_folder_is_somebody_s_own(cache, tmp_path_factory, place):
    outside = tmp_path_factory.mktemp("outside")
    for name in ("train-images-idx3-ubyte.gz", "manifest.json"):
        (outside / name).write_bytes(b"precious")
    shutil.rmtree(cache / place, ignore_errors=True)
    (cache / place).parent.mkdir(exist_ok=True)
    (cache / place).symlink_to(outside, target_is_directory=True)
    pruned(cache, "all")
    assert {file.read_bytes() for file in outside.iterdir()} == {b"precious"}
    assert len(list(outside.iterdir())) == 2


def test_entries_in_use_by_another_process_are_kept_and_listed(cache, screen):
    hold = Hold(Store(cache / "features" / FRESH).used_file)
    with FileLock(cache / "decoded" / f"{DECODED}.lock"), FileLock(cache / "weights.lock"):
        say_cache(cache, "features,decoded,weights", screen)
    said = screen.console.file.getvalue()
    assert f"kept features/{FRESH}: in use by another process" in said
    left = {entry.path for entry in cache_entries(cache)}
    assert {f"features/{FRESH}", f"decoded/{DECODED}", "weights/vgg16_notop"} <= left
    assert f"features/{OLD}" not in left
    assert "kB freed" in said
    hold.release()
    say_cache(cache, "features", screen)
    assert f"removed features/{FRESH}: block5_pool of vgg16" in screen.console.file.getvalue()


@pytest.mark.parametrize("text", ["", "feature", "older_than:30", f"features/{FOREIGN}", "features;weights"])
def test_an_unknown_selection_is_reported(cache, text):
    with pytest.raises(UserError, match="older_than:AGE"):
        pruned(cache, text)

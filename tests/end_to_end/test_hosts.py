"""One run over two hosts, which are processes on this machine, beside one host with as many devices."""

import json
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vision_transfer import features, load

SMALL = f"--config={Path(__file__).parent / 'configs' / 'small.py'}:epochs=1"
HALF_FIT, NONE_FITS = f"{SMALL},fitting=100", f"{SMALL},images=0,fitting=1"
HOSTS = 2
PATIENCE_SECONDS = 300
FEATURES = """
import sys
import numpy
from vision_transfer import features, load
from vision_transfer.runtime import hosts
hosts.start(sys.argv[1])
numpy.save(sys.argv[3], features(*load("mnist_convnet", weights="random", image_size=24), sys.argv[2], batch_size=8))
hosts.finish()
"""
# Between one host with two devices and two hosts with one: CPUs with another number of threads add in another order.
TOLERANCE = 1e-5


def with_devices(place, count, **variables):
    flags = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"--xla_force_host_platform_device_count={count}"}
    return replace(place, variables=flags | variables)


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def start(place, *flags, of_rank=((), ()), config=SMALL):
    """Starts a process on each host, in a folder of its own; the run's folder is `run` beside them."""
    return start_on_hosts(place, config, f"--workdir={place.cwd / 'run'}", *flags, of_rank=of_rank)


def start_on_hosts(place, *flags, of_rank=((), ())):
    port = free_port()
    processes = []
    for rank in range(HOSTS):
        host = with_devices(replace(place, cwd=place.cwd / f"host{rank}"), 1)
        processes.append((host, host.start(*flags, *of_rank[rank], f"--hosts=127.0.0.1:{port},{HOSTS},{rank}")))
    return processes


def finish(processes):
    try:
        return [host.finish(process) for host, process in processes]
    finally:
        for _, process in processes:
            process.kill()


def numbers(run):
    """All that a run has computed: digests of its checkpoints, metrics without times, logits."""
    manifests = sorted(run.path.glob("checkpoints/*/best/*/manifest.json"))
    digests = [json.loads(file.read_text(encoding="utf-8"))["content"]["sha256"] for file in manifests]
    # Orbax writes times into the other two files.
    other = ("arrays/_CHECKPOINT_METADATA", "arrays/commit_success.txt")
    saved = [{name: digest for name, digest in found.items() if name not in other} for found in digests]
    metrics = [{key: line[key] for key in line if key != "seconds"} for line in run.metrics()]
    with np.load(run.path / "predictions.npz") as file:
        outputs = [file[name].tobytes() for name in ("logits", "validation_logits")]
    return saved, metrics, outputs


def run_of(place, small_run):
    return type(small_run[2])(place.cwd / "run")


@pytest.fixture(scope="module")
def two_hosts(tmp_path_factory, small_run):
    """The run of two hosts that nothing interrupts, and how each of them ended."""
    place = replace(small_run[0], cwd=tmp_path_factory.mktemp("two_hosts"))
    ended = finish(start(place))
    for host in ended:
        host.assert_is_done()
    return run_of(place, small_run), ended


def logits(run):
    with np.load(run.path / "predictions.npz") as file:
        return file["logits"]


def test_two_hosts_count_each_image_once(two_hosts):
    run, ended = two_hosts
    assert "Stage" not in ended[1].out
    assert run.result()["test"]["examples"] == len(logits(run)) == 997  # odd, so that the last batch is padded
    assert run.result()["device"].endswith("2 hosts")
    run.assert_nothing_left_behind()


@pytest.mark.parametrize("cache", ["True", "False"])
def test_two_hosts_train_as_one(place, small_run, two_hosts, cache):
    alone = with_devices(replace(place, cwd=place.cwd / "alone"), HOSTS)
    # Only the second stage has a frozen prefix.
    flags = () if cache == "True" else ("--config.features.cache=False", "--config.schedule=('top',)")
    alone.launch(SMALL, "--workdir=run", *flags).assert_is_done()
    if cache == "True":
        together = two_hosts[0]
    else:
        for host in finish(start(place, *flags)):
            host.assert_is_done()
        together = run_of(place, small_run)
    np.testing.assert_allclose(logits(together), logits(run_of(alone, small_run)), atol=TOLERANCE)


def test_two_hosts_split_rows_as_one_with_two_devices(place, small_run):
    flags = ("--config.schedule=('whole',)", "--config.model.backbone=dense")  # compiled in a second
    ended = finish(start(place, *flags, config=HALF_FIT))
    for host in ended:
        host.assert_is_done()
    assert "split over 2" in ended[0].out
    alone = with_devices(replace(place, cwd=place.cwd / "alone"), HOSTS)
    alone.launch(HALF_FIT, "--workdir=run", *flags).assert_is_done()
    losses = [run_of(where, small_run).metrics()[0]["train_loss"] for where in (place, alone)]
    assert losses[0] == pytest.approx(losses[1], abs=TOLERANCE)
    assert run_of(place, small_run).result()["stages"][0]["split_over"] == HOSTS


def test_two_hosts_decode_on_the_fly_what_one_reads_from_the_cache(place, small_run, photos):
    folder = place.cwd / "classes"
    for number, photo in enumerate(sorted(photos.glob("[0-9]*.png"))):
        link = folder / "ab"[number % 2] / photo.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(photo)
    # No image fits a device, so that each host sends its rows of a batch while steps run.
    data = (f"--config.dataset.root={folder}", "--config.dataset.name=folder", "--config.batch_size=16")
    flags = (*data, "--config.schedule=('whole',)", "--config.model.backbone=dense")
    found = {}
    for decode in ("stream", "cache"):
        own = replace(place, cwd=place.cwd / decode)
        for host in finish(start(own, *flags, f"--config.dataset.decode={decode}", config=NONE_FITS)):
            host.assert_is_done()
        found[decode] = numbers(run_of(own, small_run))
    assert found["stream"] == found["cache"]


def test_a_host_that_ends_ends_all_and_the_same_command_resumes(place, small_run, two_hosts):
    """Asked to stop in the first stage, killed in the second."""
    run = run_of(place, small_run)
    for number, status in ((signal.SIGTERM, 143), (signal.SIGKILL, 75)):
        processes = start(place)
        host, first = processes[0]
        if number == signal.SIGTERM:
            assert host.wait_for(first, lambda: any(run.path.glob("checkpoints/whole/last/*")))
        else:
            assert host.wait_for(first, lambda host=host: "Stage top" in host.output())
        processes[1][1].send_signal(number)
        ended = finish(processes)
        assert ended[0].status == status, ended[0].out + ended[0].err
        assert not (run.path / "result.json").exists()
    for resumed in finish(start(place)):
        resumed.assert_is_done()
    assert numbers(run) == numbers(two_hosts[0])


def test_hosts_that_disagree_say_so(place):
    for ended in finish(start(place, of_rank=((), ("--config.seed=1",)))):
        ended.assert_is_message("differ in their command", "config.seed: host 0: 0; host 1: 1")


@pytest.mark.parametrize("hosts", ["127.0.0.1:1,2,2", "127.0.0.1,2,0", "node:1", "127.0.0.1:1,2,first"])
def test_a_wrong_flag_is_a_message(place, hosts):
    place.launch(SMALL, f"--hosts={hosts}").assert_is_message(f"--hosts={hosts}")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of 70 images, which are two batches and a piece, and a file that is none."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(70):
        pixels = np.random.default_rng(number).integers(0, 256, (30, 20), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    (folder / "broken.png").write_bytes(b"\x89PNG no image")
    return folder


def test_two_hosts_predict_the_file_of_one(place, small_run, photos):
    flags = ("--mode=predict", f"--workdir={small_run[2].path}", f"--images={photos}")
    ended = finish(start_on_hosts(place, *flags, f"--out={place.cwd / 'together.csv'}"))
    for host in ended:
        host.assert_is_done()
    assert "71 files in" in ended[0].out and ended[1].out.count("\n") <= 1  # of Gloo
    alone = with_devices(place, 1)
    alone.launch(*flags, f"--out={place.cwd / 'alone.csv'}").assert_is_done()
    assert (place.cwd / "together.csv").read_bytes() == (place.cwd / "alone.csv").read_bytes()


def test_two_hosts_have_the_features_of_one(place, photos, tmp_path):
    images, port = str(photos / "[0-9]*.png"), free_port()
    given = [f"127.0.0.1:{port},{HOSTS},{rank}" for rank in range(HOSTS)]
    environment = with_devices(place, 1).environment()
    processes = [
        subprocess.Popen([sys.executable, "-c", FEATURES, host, images, tmp_path / f"{rank}.npy"], env=environment)
        for rank, host in enumerate(given)
    ]
    assert [process.wait(PATIENCE_SECONDS) for process in processes] == [0, 0]
    expected = features(*load("mnist_convnet", weights="random", image_size=24), images)
    for rank in range(HOSTS):
        np.testing.assert_allclose(np.load(tmp_path / f"{rank}.npy"), expected, atol=TOLERANCE)


def test_two_hosts_measure_together(place):
    flags = ("--config.batch_size=4", "--config.benchmark.repeats=2", "--config.benchmark.seconds_per_repeat=0.05")
    config = "--config=benchmark:backbone=dense"
    flags += ("--config.dataset.image_size=28", "--config.benchmark.forward_batches=(4,)")
    ended = finish(start(place, *flags, "--config.benchmark.freeze=('none',)", config=config))
    for host in ended:
        host.assert_is_done()
    result = json.loads((place.cwd / "run" / "benchmark.json").read_text(encoding="utf-8"))
    assert [record["status"] for record in result["measured"]] == ["measured"] * 2
    for record in result["measured"]:
        assert record["devices"] == HOSTS and record["device"].endswith("2 hosts")
        assert record["images_per_second"] == pytest.approx(4 / record["seconds"]["median"])


def test_a_benchmark_of_what_one_host_does_takes_no_hosts(place):
    flags = ("--config=benchmark", "--config.benchmark.peers=torch", "--hosts=127.0.0.1:1,2,1")
    place.launch(*flags).assert_is_message("config.benchmark.peers", "steps and forward passes only")


@pytest.mark.parametrize("flag", ["--mode=summary", "--config.task=probe", "--config.dataset.folds=2"])
def test_others_than_training_and_predict_take_no_hosts(place, flag):
    refused = place.launch(SMALL, flag, "--hosts=127.0.0.1:1,2,0")
    refused.assert_is_message("config.task=train", "--mode=predict", "omit --hosts")


def test_a_wrong_time_limit_is_a_message(place):
    waiting = with_devices(place, 1, VISION_TRANSFER_HOSTS_SECONDS="5m")
    waiting.launch(SMALL, "--hosts=127.0.0.1:1,2,1").assert_is_message("'5m'", "whole number of seconds")


def test_a_coordinator_that_is_not_there_is_a_message(place):
    waiting = with_devices(place, 1, VISION_TRANSFER_HOSTS_SECONDS="3")
    waiting.launch(SMALL, f"--hosts=127.0.0.1:{free_port()},2,1").assert_is_message("within 3 s", "each rank from 0")

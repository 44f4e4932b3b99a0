"""Interrupted runs: the same command resumes and ends with the numbers of an uninterrupted run."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.end_to_end.conftest import Run
from vision_transfer.runtime.preemption import Stopped, StopSignal

ROOT = Path(__file__).resolve().parents[2]
SMALL = f"--config={Path(__file__).parent / 'configs' / 'small.py'}"
FLAGS = (SMALL, "--workdir=run")
# A process that is asked to stop must end within this time, including saving.
STOP_SECONDS = 10


@pytest.fixture
def run(place, small_run):
    return type(small_run[2])(place.cwd / "run")


def appears(place, text):
    return lambda: text in place.output()


def exists(run, pattern):
    return lambda: any(run.path.glob(pattern))


def kill_when(place, happened, delay=0.0):
    """Starts the run and kills it shortly after something happened; returns False if the run ended first."""
    process = place.start(*FLAGS)
    reached = place.wait_for(process, happened)
    time.sleep(delay)
    process.kill()
    process.wait()
    return reached


def test_killed_again_and_again(place, run, small_run):
    random = np.random.default_rng(0)
    moments = [
        exists(run, "identity.json"),
        exists(run, "checkpoints/whole/last/*"),
        exists(run, "metrics.jsonl"),
        appears(place, "Stage top"),
        exists(run, "checkpoints/top/last/*"),
        exists(run, "checkpoints/top/best/*"),
        exists(run, "predictions.npz"),
    ]
    reached = [kill_when(place, moment, random.uniform(0, 0.2)) for moment in moments]
    assert reached[:2] == [True] * 2  # on a fast machine the run may finish before the later ones
    place.launch(*FLAGS).assert_is_done()
    assert run.numbers() == small_run[2].numbers()
    without_times = [{key: line[key] for key in line if key != "seconds"} for line in run.metrics()]
    assert without_times == [{key: line[key] for key in line if key != "seconds"} for line in small_run[2].metrics()]
    run.assert_nothing_left_behind()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["SIGTERM", "SIGINT"])
def test_asked_to_stop_in_training(place, run, small_run, number, status):
    process = place.start(*FLAGS)
    assert place.wait_for(process, exists(run, "checkpoints/whole/last/*"))
    process.send_signal(number)
    asked = time.monotonic()
    finished = place.finish(process)
    assert time.monotonic() - asked < STOP_SECONDS
    assert finished.status == status, finished.out + finished.err
    assert finished.err == ""
    last = finished.out.splitlines()[-1]
    assert last.startswith("Stopped. ")
    assert last.endswith("Run the same command again to resume.")
    assert not (run.path / "result.json").exists()
    run.assert_nothing_left_behind()
    assert any(run.path.glob("checkpoints/whole/last/*/manifest.json"))
    spent = json.loads((run.path / "spent.json").read_text(encoding="utf-8"))
    place.launch(*FLAGS).assert_is_done()
    assert run.numbers() == small_run[2].numbers()
    seconds = run.result()["seconds"]
    assert seconds["total"] > sum(spent.values()), "the time of both attempts"
    assert all(seconds[activity] >= round(earlier, 3) for activity, earlier in spent.items())


def test_images_decoded_on_the_fly_give_the_numbers_of_the_cache_interrupted_or_not(place, image_folder):
    """The cached run, then the streamed one in a cache of its own: from images, and then from features."""
    own = type(place)(place.cwd / "streamed", place.cwd / "cache of its own")
    own.cache.mkdir(parents=True)
    (own.cache / "compiled").symlink_to(place.cache / "compiled")
    # No image fits a device, so that they are sent while steps run.
    data = ("--config.dataset.name=folder", f"--config.dataset.root={image_folder}")
    flags = (f"{SMALL}:images=0,fitting=1", *data, "--workdir=run")
    place.launch(*flags).assert_is_done()
    expected, found = (Run(each.cwd / "run") for each in (place, own))
    process = own.start(*flags, "--config.dataset.decode=stream")
    assert own.wait_for(process, exists(found, "checkpoints/whole/last/*"))
    process.send_signal(signal.SIGTERM)
    stopped = own.finish(process)
    assert stopped.status == 143, stopped.out + stopped.err
    own.launch(*flags, "--config.dataset.decode=stream").assert_is_done()
    assert found.numbers() == expected.numbers()
    assert not list(own.cache.rglob("images.npy"))
    assert expected.numbers()["digest"] == found.numbers()["digest"]


def test_asked_to_stop_before_training(place, run):
    process = place.start(*FLAGS)
    assert place.wait_for(process, exists(run, ".lock"))
    process.send_signal(signal.SIGTERM)
    assert place.finish(process).status == 143
    run.assert_nothing_left_behind()


def test_a_second_command_shows_the_finished_run(copied_run):
    run, again = copied_run
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*") if path.name != ".lock"}
    finished = again()
    finished.assert_is_done()
    assert "This run is finished" in finished.out
    assert "--rerun" in finished.out
    assert "Stage whole:" not in finished.out
    assert f"{run.result()['test']['accuracy']:.4f}" in finished.out
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*") if path.name != ".lock"} == before


def test_a_second_command_writes_the_report_that_a_kill_interrupted(copied_run):
    run, again = copied_run
    for place in (run.path, run.path / "figures"):
        place.mkdir(exist_ok=True)
        (place / "report.html.writing-0123456789ab").write_text("half")
    finished = again("--config.log.report=True")
    finished.assert_is_done()
    assert "This run is finished" in finished.out
    assert (run.path / "report.html").exists()
    assert (run.path / "figures" / "curves.png").exists()
    run.assert_nothing_left_behind()


def test_rerun(copied_run):
    run, again = copied_run
    numbers, inode = run.numbers(), (run.path / "result.json").stat().st_ino
    finished = again("--rerun")
    finished.assert_is_done()
    assert "Stage whole:" in finished.out
    assert (run.path / "result.json").stat().st_ino != inode
    assert run.numbers() == numbers
    run.assert_nothing_left_behind()


def test_run_of_other_code_and_versions(copied_run):
    run, again = copied_run
    run.identity(code="0123456789abcdef", versions={"jax": "0.0.1"}, device="abacus × 10")
    refused = again()
    refused.assert_is_message("copy: this run was finished", "0123456789abcdef", "jax: then 0.0.1", "abacus × 10")
    refused.assert_is_message("--rerun does it again", "--reuse takes it as it is")
    reused = again("--reuse")
    reused.assert_is_done()
    assert "This run is finished" in reused.out


def test_a_run_of_other_code_that_has_not_trained_yet_starts(place, run, small_run):
    assert kill_when(place, exists(run, "identity.json"))
    if any(run.path.glob("checkpoints/*/*/*")):
        pytest.skip("training started before the signal")
    run.identity(code="0123456789abcdef")
    place.launch(*FLAGS).assert_is_done()
    assert run.numbers() == small_run[2].numbers()


@pytest.mark.parametrize(
    ("content", "part"), [("[1]", "identity.json"), ('{"digest": 3}', "--workdir=copy")], ids=["list", "other"]
)
def test_damaged_identity(copied_run, content, part):
    run, again = copied_run
    (run.path / "identity.json").write_text(content)
    again().assert_is_message(part)


@pytest.mark.parametrize("damage", ["cut", "of another run", "without stages"])
def test_damaged_result(copied_run, damage):
    run, again = copied_run
    whole = run.result()
    contents = {
        "cut": json.dumps(whole)[:-1],
        "of another run": json.dumps(whole | {"digest": "0123456789abcdef"}),
        "without stages": json.dumps(whole | {"stages": 3}),
    }
    (run.path / "result.json").write_text(contents[damage])
    again().assert_is_message("result.json", "remove it")


def test_damaged_checkpoint(copied_run):
    run, again = copied_run
    (run.path / "result.json").unlink()
    for file in run.path.glob("checkpoints/top/*/*/arrays/*head_logits.kernel/0*"):
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    again().assert_is_message("checkpoint", "head_logits.kernel", "damaged", "remove this folder")


def test_deleted_checkpoints_and_predictions_are_made_again(copied_run, small_run):
    run, again = copied_run
    (run.path / "result.json").unlink()
    (run.path / "predictions.npz").unlink()
    (run.path / "metrics.jsonl").write_text("not json\n")
    shutil.rmtree(run.path / "checkpoints" / "top")
    again().assert_is_done()
    assert run.numbers() == small_run[2].numbers()
    assert [line["stage"] for line in run.metrics()] == ["whole", "whole", "top", "top"]


def test_damaged_cache_is_made_again(place, run, small_run):
    shards = [*place.cache.glob("features/*/*.npy"), *place.cache.glob("features/*/*.json")]
    assert shards
    for position, file in enumerate(shards):
        content = bytearray(file.read_bytes())
        content[-1 - position] ^= 1
        file.write_bytes(content if position % 2 else content[: len(content) // 2])
    place.launch(*FLAGS).assert_is_done()
    assert run.numbers() == small_run[2].numbers()
    assert [str(path) for path in place.cache.rglob("*.writing-*")] == []


def test_an_operation_that_does_not_end_is_cut_off():
    code = (
        "import time\n"
        "from vision_transfer.runtime import preemption\n"
        "preemption.GRACE_SECONDS = 0.3\n"
        "stop = preemption.StopSignal()\n"
        "stop.install()\n"
        "with stop.deferred():\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(600)\n"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        _, message = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "did not end within" in message and "SIGTERM" in message and "resume from the last checkpoint" in message


def test_a_signal_after_the_last_check_still_stops():
    stop = StopSignal()
    with pytest.raises(Stopped) as stopped, stop.deferred():
        stop.received = signal.SIGTERM
    assert stopped.value.status == 143

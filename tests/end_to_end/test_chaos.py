"""Kills and stops at random moments, from the imports to the test: the same command ends with the same result.

`VISION_TRANSFER_CHAOS_KILLS=100 VISION_TRANSFER_CHAOS_LOAD=8` is the long version: a hundred of each, of three
networks, beside eight busy processes. By default there are a few of each, of one that is compiled soon, and no load.
"""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

CONFIG = Path(__file__).parent / "configs" / "random_weights.py"
KILLS = int(os.environ.get("VISION_TRANSFER_CHAOS_KILLS", "2"))
CASES = [("mnist_convnet", signal.SIGKILL), ("mnist_convnet", signal.SIGTERM)]
if "VISION_TRANSFER_CHAOS_KILLS" in os.environ:
    CASES += [("vgg16", signal.SIGKILL), ("vgg16", signal.SIGTERM)]
    # A network with branches, and batch statistics that belong to what is resumed.
    CASES.append(("efficientnet_lite0", signal.SIGKILL))
LOAD = int(os.environ.get("VISION_TRANSFER_CHAOS_LOAD", "0"))
# A process that is asked to stop must end within this time, and with this status.
STOP_SECONDS, STOPPED = 10, 143
# A checkpoint after every chunk of steps, so that kills hit different states.
FLAGS = ("--config.checkpoint.every_seconds=0", "--workdir=run")


@pytest.fixture(scope="module", autouse=True)
def load():
    """Busy processes beside the runs."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(LOAD)]
    yield
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def uninterrupted(request, tmp_path_factory, image_folder, small_run, load):
    """The flags of an uninterrupted run, its numbers, and the seconds it took."""
    flags = (f"--config={CONFIG}:backbone={request.param}", f"--config.dataset.root={image_folder}", *FLAGS)
    calm = replace(small_run[0], cwd=tmp_path_factory.mktemp("calm"), cache=tmp_path_factory.mktemp("calm cache"))
    began = time.monotonic()
    calm.launch(*flags).assert_is_done()
    return flags, type(small_run[2])(calm.cwd / "run").numbers(), time.monotonic() - began


@pytest.mark.parametrize(
    ("uninterrupted", "number"),
    CASES,
    indirect=["uninterrupted"],
    ids=[f"{name}-{number.name}" for name, number in CASES],
)
def test_signals_at_random_moments_change_nothing(place, tmp_path, small_run, uninterrupted, number):
    flags, numbers, seconds = uninterrupted
    random, kills, round_number = np.random.default_rng(), 0, 0
    while kills < KILLS:
        round_number += 1
        here = replace(place, cwd=tmp_path / f"round {round_number}", cache=tmp_path / f"cache {round_number}")
        run = type(small_run[2])(here.cwd / "run")
        while kills < KILLS:
            process = here.start(*flags)
            # The earlier part of the run is in the caches by now, so that kills hit later parts.
            time.sleep(random.uniform(0, seconds))
            ended = process.poll() is not None
            process.send_signal(number)
            asked = time.monotonic()
            process.wait(60)
            if ended or process.returncode == 0:
                break
            kills += 1
            if number == signal.SIGTERM:
                said = here.output() + here.output("stderr.txt")
                # The shell's way to say 143, where the interpreter itself was only starting.
                assert process.returncode in (STOPPED, -number), said
                assert time.monotonic() - asked < STOP_SECONDS
                assert "Traceback" not in said
                assert "Error" not in here.output("stderr.txt")
        here.launch(*flags).assert_is_done()
        assert run.numbers() == numbers
        run.assert_nothing_left_behind()
        assert [str(path) for path in here.cache.rglob("*.writing-*")] == []
        for lock in here.cache.rglob("*.lock"):
            with FileLock(lock, timeout=0):
                pass

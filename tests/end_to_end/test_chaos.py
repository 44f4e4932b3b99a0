"""Kills at random moments, from decoding to the test: the same command resumes and ends with the same result.

`VISION_TRANSFER_CHAOS_KILLS=60 pytest tests/end_to_end/test_chaos.py` is the long version; by default there are a
few kills.
"""

import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

CONFIG = f"--config={Path(__file__).parent / 'configs' / 'vgg_random.py'}"
KILLS = int(os.environ.get("VISION_TRANSFER_CHAOS_KILLS", "3"))
# A checkpoint after every chunk of steps, so that kills hit different states.
FLAGS = (CONFIG, "--config.checkpoint.every_seconds=0", "--workdir=run")


@pytest.fixture
def uninterrupted(place, tmp_path, image_folder, small_run):
    """The numbers of an uninterrupted run, and the seconds it took."""
    calm = replace(place, cwd=tmp_path / "calm", cache=tmp_path / "calm cache")
    began = time.monotonic()
    calm.launch(*FLAGS, f"--config.dataset.root={image_folder}").assert_is_done()
    return type(small_run[2])(calm.cwd / "run").numbers(), time.monotonic() - began


def test_kills_at_random_moments_change_nothing(place, tmp_path, image_folder, small_run, uninterrupted):
    numbers, seconds = uninterrupted
    random, kills, round_number = np.random.default_rng(), 0, 0
    while kills < KILLS:
        round_number += 1
        here = replace(place, cwd=tmp_path / f"round {round_number}", cache=tmp_path / f"cache {round_number}")
        command = (*FLAGS, f"--config.dataset.root={image_folder}")
        run = type(small_run[2])(here.cwd / "run")
        while kills < KILLS:
            process = here.start(*command)
            # The earlier part of the run is in the caches by now, so that kills hit later parts.
            time.sleep(random.uniform(0, seconds))
            ended = process.poll() is not None
            process.kill()
            process.wait()
            if ended:
                break
            kills += 1
        here.launch(*command).assert_is_done()
        assert run.numbers() == numbers
        run.assert_nothing_left_behind()
        assert [str(path) for path in here.cache.rglob("*.writing-*")] == []
        for lock in here.cache.rglob("*.lock"):
            with FileLock(lock, timeout=0):
                pass

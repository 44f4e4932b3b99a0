"""Kills at random moments, from decoding to the test: the same command goes on and ends as if nothing had happened.

`VISION_TRANSFER_CHAOS_KILLS=60 pytest tests/end_to_end/test_chaos.py` is the long proof; a few kills are the default.
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
# A checkpoint after every chunk of steps, so that each kill meets another state.
FLAGS = (CONFIG, "--config.checkpoint.every_seconds=0", "--workdir=run")


@pytest.fixture
def undisturbed(place, tmp_path, picture_folder, small_run):
    """The numbers of a run that nothing disturbs, the seconds that it took, and where."""
    calm = replace(place, cwd=tmp_path / "calm", cache=tmp_path / "calm cache")
    began = time.monotonic()
    calm.launch(*FLAGS, f"--config.dataset.root={picture_folder}").assert_is_done()
    return type(small_run[2])(calm.cwd / "run").numbers(), time.monotonic() - began


def test_kills_at_random_moments_change_nothing(place, tmp_path, picture_folder, small_run, undisturbed):
    numbers, seconds = undisturbed
    random, kills, round_number = np.random.default_rng(), 0, 0
    while kills < KILLS:
        round_number += 1
        here = replace(place, cwd=tmp_path / f"round {round_number}", cache=tmp_path / f"cache {round_number}")
        command = (*FLAGS, f"--config.dataset.root={picture_folder}")
        run = type(small_run[2])(here.cwd / "run")
        while kills < KILLS:
            process = here.start(*command)
            # Later moments of the run come first once its earlier part is in the caches.
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

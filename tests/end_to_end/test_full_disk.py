"""A disk without room: one message, the last words on the screen, and the same command completes once there is room.

`VISION_TRANSFER_DISK_LEVELS=10 pytest tests/end_to_end/test_full_disk.py` tries ten sizes, on a disk in memory where
this user may mount one. By default, files of a run may not exceed a size.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SMALL = f"--config={Path(__file__).parent / 'configs' / 'small.py'}"
LEVELS = int(os.environ.get("VISION_TRANSFER_DISK_LEVELS", "0"))
SMALLEST_KILOBYTES, LARGEST_KILOBYTES = 64, 3000


def assert_is_one_last_message(finished):
    assert finished.status == 2, finished.out + finished.err
    assert finished.err.startswith("launch.py: "), finished.err
    assert finished.err.count("\n") == 1, finished.err
    assert "Traceback" not in finished.out
    assert "Fix this and run the same command again" in finished.err


@pytest.mark.skipif(shutil.which("prlimit") is None, reason="prlimit is not installed")
def test_a_limit_on_the_size_of_files(place, small_run):
    run = type(small_run[2])(place.cwd / "run")
    refused = place.launch(SMALL, "--workdir=run", prefix=("prlimit", "--fsize=40000"))
    assert_is_one_last_message(refused)
    assert "File too large" in refused.err
    run.assert_nothing_left_behind()
    place.launch(SMALL, "--workdir=run").assert_is_done()
    assert run.numbers() == small_run[2].numbers()


@pytest.fixture
def small_disk(tmp_path):
    """Mounts a disk of so many kilobytes, where that is permitted."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(kilobytes, *options):
        command = ["mount", "-t", "tmpfs", "-o", ",".join([f"size={kilobytes}k", *options]), "tmpfs", str(folder)]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip("mounting a disk in memory is not permitted")
        return folder

    yield mount
    subprocess.run(["umount", str(folder)], capture_output=True)


@pytest.mark.parametrize("level", range(LEVELS))
def test_a_full_disk(place, small_run, small_disk, level):
    share = level / max(1, LEVELS - 1)
    kilobytes = int(SMALLEST_KILOBYTES + share * (LARGEST_KILOBYTES - SMALLEST_KILOBYTES))
    run = type(small_run[2])(small_disk(kilobytes) / "run")
    refused = place.launch(SMALL, f"--workdir={run.path}")
    if refused.status:
        assert_is_one_last_message(refused)
        run.assert_nothing_left_behind()
        small_disk(100_000, "remount")
        place.launch(SMALL, f"--workdir={run.path}").assert_is_done()
    assert run.numbers() == small_run[2].numbers()

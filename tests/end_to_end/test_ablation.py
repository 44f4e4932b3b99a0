"""An ablation as users start it: with workers that are killed at random, and again as one undisturbed process.

`VISION_TRANSFER_CHAOS_KILLS=10 pytest tests/end_to_end/test_ablation.py` is the long version; by default
there are a few kills.
"""

import csv
import json
import os
import random
import signal
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from vision_transfer.runtime.provenance import json_digest

KILLS = int(os.environ.get("VISION_TRANSFER_CHAOS_KILLS", "3"))
# Enough seeds for the sweep to outlast the kills.
SEEDS = tuple(range(max(2, KILLS // 2)))
RUNS = 3 * len(SEEDS)
CONFIG = Path(__file__).parent / "configs" / "small_ablation.py"
ABLATION = (f"--config={CONFIG}", f"--config.study.seeds={SEEDS}", "--workdir=sweep")
# A worker does nothing that a kill could disturb in its first second.
SHORTEST_LIFE, LONGEST_LIFE = 1.0, 6.0

# The second worker of each job then claims to run on another kind of device.
CLAIM = """\
import os, sys

if os.environ.get("SUBMITIT_LOCAL_LOCALID") == "1" and "vision_transfer.tasks.ablation.worker" in sys.orig_argv:
    from vision_transfer.runs import prepare
    from vision_transfer.tasks.study import runs

    prepare.device_text = runs.device_text = lambda: "abacus"
"""


def job_workers(sweep):
    """Ids of the workers of a sweep's jobs."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended
            arguments = file.read_bytes().decode(errors="replace").split("\0")
            if "vision_transfer.tasks.ablation.worker" in arguments and str(sweep) in arguments:
                found.append(int(file.parent.name))
    return found


def workers_of(process):
    """Ids of the children of a process."""
    return [int(number) for number in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def numbers(place):
    """The result of each run, without times, by its config."""
    found = {}
    for file in (place.cwd / "runs").glob("*/result.json"):
        result = json.loads(file.read_text(encoding="utf-8"))
        config = json.loads((file.parent / "config.json").read_text(encoding="utf-8"))
        key = json_digest({"seed": config["seed"], "schedule": config["schedule"], "stages": config["stages"]})
        assert key not in found, "a run was done twice"
        stages = [(stage["name"], stage["train"], stage["validation"]) for stage in result["stages"]]
        found[key] = (result["digest"], stages, result["test"])
    return found


@pytest.fixture(scope="module")
def calm(tmp_path_factory, small_run):
    """The place of a sweep that nothing disturbed."""
    place = replace(small_run[0], cwd=tmp_path_factory.mktemp("calm"))
    place.launch(*ABLATION).assert_is_done()
    return place


def test_randomly_killed_workers_finish_every_run_once_with_the_same_numbers(place, request):
    dry = place.launch(*ABLATION, "--dry_run")
    dry.assert_is_done()
    assert f"{RUNS} runs, {RUNS} remaining" in dry.out
    counted = f"{5 * len(SEEDS)} stages, {RUNS} of them to train ({len(SEEDS)} different first stages"
    assert f"{counted} for {RUNS} runs)" in dry.out
    assert not (place.cwd / "runs").exists()

    process = place.start(*ABLATION, "--launcher=processes:2")
    draw, killed = random.Random(0), 0
    while killed < KILLS and process.poll() is None:
        time.sleep(draw.uniform(SHORTEST_LIFE, LONGEST_LIFE))
        workers = workers_of(process) if process.poll() is None else []
        if workers:
            os.kill(draw.choice(workers), signal.SIGKILL)
            killed += 1
    finished = place.finish(process)
    finished.assert_is_done()
    assert killed == KILLS

    sweep = place.cwd / "sweep"
    with (sweep / "runs.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len({row["folder"] for row in rows}) == len(rows) == RUNS
    figures = {file.name for file in (sweep / "figures").iterdir()}
    assert figures == {"depth.png", "validation.png", "calibration.png", "cost.png"}

    # Only now, so that the killed sweep had to compile and outlasted the kills.
    calm = request.getfixturevalue("calm")
    killed_sweep, uninterrupted = numbers(place), numbers(calm)
    assert len(uninterrupted) == RUNS
    assert killed_sweep == uninterrupted

    half = calm.cwd / "sweep" / "figures" / "depth.png.writing-0123456789ab"
    half.write_text("half")
    again = calm.launch(*ABLATION)
    again.assert_is_done()
    assert f"{RUNS} runs, 0 remaining" in again.out
    assert "epochs of" not in again.out
    assert not half.exists()


def test_workers_of_one_job_that_see_different_devices_do_every_run_once(place, calm, tmp_path):
    """One of two claims to be an abacus; one of them, chosen at random, is killed."""
    pytest.importorskip("submitit", reason="submitit is not installed (extra [slurm])")
    (tmp_path / "claims").mkdir()
    (tmp_path / "claims" / "sitecustomize.py").write_text(CLAIM, encoding="utf-8")
    path = os.pathsep.join([str(tmp_path / "claims"), os.environ.get("PYTHONPATH", "")])
    mixed = replace(place, variables={"PYTHONPATH": path})
    local = ("--launcher=slurm:1", "--config.slurm.cluster=local", "--config.slurm.tasks_per_node=2")
    process = mixed.start(*ABLATION, *local)
    runs = mixed.cwd / "runs"
    assert mixed.wait_for(process, lambda: any(runs.glob("*/result.json")))
    os.kill(random.Random(0).choice(job_workers(mixed.cwd / "sweep")), signal.SIGKILL)
    finished = mixed.finish(process)
    finished.assert_is_done()
    assert f"{RUNS} of {RUNS} runs" in finished.out
    assert "were left as they are" not in finished.out
    assert "were not all done by the same" in finished.out
    assert numbers(mixed) == numbers(calm)
    identities = [json.loads(file.read_text(encoding="utf-8")) for file in runs.glob("*/identity.json")]
    assert len({identity["device"] for identity in identities}) == 2
    logs = [file.read_text(encoding="utf-8") for file in (mixed.cwd / "sweep" / "jobs").glob("*_log.out")]
    assert any("Left as it is" in log and "abacus" in log for log in logs)

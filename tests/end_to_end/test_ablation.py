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
from pathlib import Path

from vision_transfer.runtime.provenance import json_digest

KILLS = int(os.environ.get("VISION_TRANSFER_CHAOS_KILLS", "3"))
# Enough seeds for the sweep to outlast the kills.
SEEDS = tuple(range(max(2, KILLS // 2)))
RUNS = 3 * len(SEEDS)
CONFIG = Path(__file__).parent / "configs" / "small_ablation.py"
ABLATION = (f"--config={CONFIG}", f"--config.study.seeds={SEEDS}", "--workdir=sweep")
# A worker does nothing that a kill could disturb in its first second.
SHORTEST_LIFE, LONGEST_LIFE = 1.0, 6.0


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


def test_randomly_killed_workers_finish_every_run_once_with_the_same_numbers(place, tmp_path):
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

    calm = type(place)(tmp_path / "calm", place.cache)
    calm.launch(*ABLATION).assert_is_done()
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

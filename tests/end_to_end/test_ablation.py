"""An ablation as users start it: by workers that are killed at random, and again as one process in peace.

`VISION_TRANSFER_CHAOS_KILLS=10 pytest tests/end_to_end/test_ablation.py` is the long proof; a few kills are
the default.
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
# So many that the sweep outlives the kills.
SEEDS = tuple(range(max(2, KILLS // 2)))
RUNS = 3 * len(SEEDS)
CONFIG = Path(__file__).parent / "configs" / "small_ablation.py"
ABLATION = (f"--config={CONFIG}", f"--config.study.seeds={SEEDS}", "--workdir=sweep")
# Nothing that a kill can hit happens in the first second of a worker.
SHORTEST_LIFE, LONGEST_LIFE = 1.0, 6.0


def workers_of(process):
    """Ids of the processes that a process started."""
    return [int(number) for number in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def numbers(place):
    """By the config of each run: its result without times, and its predictions."""
    found = {}
    for file in (place.cwd / "runs").glob("*/result.json"):
        result = json.loads(file.read_text(encoding="utf-8"))
        config = json.loads((file.parent / "config.json").read_text(encoding="utf-8"))
        key = json_digest({"seed": config["seed"], "schedule": config["schedule"], "stages": config["stages"]})
        assert key not in found, "a run was done twice"
        stages = [(stage["name"], stage["train"], stage["validation"]) for stage in result["stages"]]
        found[key] = (result["digest"], stages, result["test"])
    return found


def test_workers_killed_at_random_end_with_every_run_once_and_the_same_numbers(place, tmp_path):
    dry = place.launch(*ABLATION, "--dry_run")
    dry.assert_is_done()
    assert f"{RUNS} runs, {RUNS} of them to do" in dry.out
    counted = f"{5 * len(SEEDS)} stages, of which {RUNS} are trained ({len(SEEDS)} different first stages"
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

    peaceful = type(place)(tmp_path / "peace", place.cache)
    peaceful.launch(*ABLATION).assert_is_done()
    disturbed, undisturbed = numbers(place), numbers(peaceful)
    assert len(undisturbed) == RUNS
    assert disturbed == undisturbed

    half = peaceful.cwd / "sweep" / "figures" / "depth.png.writing-0123456789ab"
    half.write_text("half")
    again = peaceful.launch(*ABLATION)
    again.assert_is_done()
    assert f"{RUNS} runs, 0 of them to do" in again.out
    assert "epochs of" not in again.out
    assert not half.exists()
